"""LoRA adapters by peft: y = base(x) + scale * B(A(x)), where `base` is frozen.

peft's layers are put into the model in place. ZeRO-3 gathers and partitions their linear parts like
any other layer. With the adapters off, the model is the frozen reference of GRPO's KL term.
Source: Hu et al., arXiv 2106.09685.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from awares.errors import PolicyError
from awares.family import ModelFamily, in_tower
from awares_platform.weights.adapter import ADAPTER, DOWN, UP, fold

_BASE = ".base_layer"


def attach(
    model: nn.Module,
    family: ModelFamily,
    rank: int,
    alpha: float,
    targets: tuple[str, ...],
    seed: int,
) -> int:
    """Freeze `model` and give every targeted linear layer outside the vision tower an adapter.

    Without `targets`, the family's lora_targets are used. Returns the number of adapters. B starts
    at zero, so fresh adapters leave the output unchanged. The same seed gives the same adapters on
    every rank. Raises PolicyError if no layer matches.
    """
    import peft

    targets = targets or family.lora_targets
    model.requires_grad_(False)
    found = [
        name
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
    settings = peft.LoraConfig(
        r=rank,
        lora_alpha=alpha,  # pyright: ignore[reportArgumentType]
        target_modules=found,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        peft.inject_adapter_in_model(settings, model, ADAPTER)
    return len(found)


@contextmanager
def adapters_off(model: nn.Module) -> Iterator[None]:
    """Switch the adapters off within the block, so that the model is its frozen base."""
    layers = [layer for _, layer in _layers(model)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def scale(model: nn.Module) -> float | None:
    """Return the scale of the adapters of `model`, alpha / rank, or None if it has none."""
    return next((layer.scaling[ADAPTER] for _, layer in _layers(model)), None)


def merged(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return `state` under the base model's names, with the adapters folded in, in float32.

    `state` holds the full tensors of `model`. The tensors in `model` itself may be partitioned; it
    only shows which layers have adapters.
    """
    state = dict(state)
    for name, layer in _layers(model):
        down, up = state.pop(f"{name}{DOWN}"), state.pop(f"{name}{UP}")
        weight = state.pop(f"{name}{_BASE}.weight")
        state[f"{name}.weight"] = fold(weight, down, up, layer.scaling[ADAPTER])
        if (bias := state.pop(f"{name}{_BASE}.bias", None)) is not None:
            state[f"{name}.bias"] = bias
    return state


def _layers(model: nn.Module) -> list[tuple[str, Any]]:
    """Return the layers of `model` that have an adapter, by name. Only peft's layers have one."""
    return [(name, layer) for name, layer in model.named_modules() if hasattr(layer, "lora_A")]
