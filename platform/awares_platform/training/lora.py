"""LoRA adapters as plain modules: y = base(x) + scale * up(down(x)), where `base` is frozen.

Adapters are nn.Linear children, so ZeRO-3 gathers and partitions them like any other layer. With
the adapters off, the model is the frozen reference of GRPO's KL term.
Source: Hu et al., arXiv 2106.09685.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from awares.errors import PolicyError
from awares.family import ModelFamily, in_tower
from awares_platform.weights.adapter import fold


class LoraLinear(nn.Module):
    """A frozen linear layer with a low-rank adapter.

    `up` starts at zero, so a fresh adapter leaves the output unchanged.
    """

    def __init__(
        self, base: nn.Linear, rank: int, alpha: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        kind = {"dtype": base.weight.dtype, "device": base.weight.device}
        self.base = base.requires_grad_(False)
        self.down = nn.Linear(base.in_features, rank, bias=False, **kind)
        self.up = nn.Linear(rank, base.out_features, bias=False, **kind)
        self.scale = alpha / rank
        self.enabled = True
        bound = base.in_features**-0.5
        with torch.no_grad():
            self.down.weight.copy_(
                torch.empty(rank, base.in_features).uniform_(-bound, bound, generator=generator)
            )
            self.up.weight.zero_()

    def forward(self, x: Tensor) -> Tensor:
        y = self.base(x)
        return y + self.scale * self.up(self.down(x)) if self.enabled else y


def attach(
    model: nn.Module,
    family: ModelFamily,
    rank: int,
    alpha: float,
    targets: tuple[str, ...],
    seed: int,
) -> int:
    """Freeze `model` and give every targeted linear layer outside the vision tower an adapter.

    Without `targets`, the family's lora_targets are used. Returns the number of adapters. The same
    seed gives the same adapters on every rank. Raises PolicyError if no layer matches.
    """
    targets = targets or family.lora_targets
    generator = torch.Generator().manual_seed(seed)
    model.requires_grad_(False)
    found = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and name.rsplit(".", 1)[-1] in targets
        and not in_tower(family, name)
    ]
    if not found:
        raise PolicyError(
            f"policy.lora_targets={list(targets)} match no linear layer of the language model; "
            f"name layers such as {family.lora_targets[0]!r}"
        )
    for name, module in found:
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, LoraLinear(module, rank, alpha, generator))
    return len(found)


@contextmanager
def adapters_off(model: nn.Module) -> Iterator[None]:
    """Switch the adapters off within the block, so that the model is its frozen base."""
    layers = [module for module in model.modules() if isinstance(module, LoraLinear)]
    for layer in layers:
        layer.enabled = False
    try:
        yield
    finally:
        for layer in layers:
            layer.enabled = True


def scale(model: nn.Module) -> float | None:
    """Return the scale of the adapters of `model`, alpha / rank, or None if it has none."""
    return next(
        (module.scale for module in model.modules() if isinstance(module, LoraLinear)), None
    )


def merged(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return `state` under the base model's names, with the adapters folded in, in float32.

    `state` holds the full tensors of `model`. The tensors in `model` itself may be partitioned; it
    only shows which layers have adapters.
    """
    state = dict(state)
    for name, module in model.named_modules():
        if not isinstance(module, LoraLinear):
            continue
        down, up = state.pop(f"{name}.down.weight"), state.pop(f"{name}.up.weight")
        weight = state.pop(f"{name}.base.weight")
        state[f"{name}.weight"] = fold(weight, down, up, module.scale)
        if (bias := state.pop(f"{name}.base.bias", None)) is not None:
            state[f"{name}.bias"] = bias
    return state
