"""Folds a published LoRA adapter into a reader's copy of the base policy.

A run that trains an adapter publishes only the adapter, under the names of peft's parameters. The
adapter of a layer x has two tensors: x.lora_A.default.weight of shape (rank, in) and
x.lora_B.default.weight of shape (out, rank).
Source: Hu et al., arXiv 2106.09685, section 4.1.
"""

from collections.abc import Callable, Mapping

from torch import Tensor

from awares_platform.weights.manifest import WeightsError

ADAPTER = "default"
"""The name that peft gives to the adapter of a run."""
DOWN = f".lora_A.{ADAPTER}.weight"
"""The suffix of the names of tensors of shape (rank, in)."""
UP = f".lora_B.{ADAPTER}.weight"
"""The suffix of the names of tensors of shape (out, rank)."""


def is_adapter(name: str) -> bool:
    """Whether the tensor `name` belongs to an adapter."""
    return name.endswith((DOWN, UP))


def fold(weight: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
    """Return weight + scale * up @ down, computed in float32 and cast to the weight's dtype."""
    return (weight.float() + scale * (up.float() @ down.float())).to(weight.dtype)


def fold_adapter(
    adapter: Mapping[str, Tensor],
    scale: float,
    base: Mapping[str, Tensor],
    current_name: Callable[[str], str],
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Fold an adapter into the base weights that it changes.

    Return two mappings. The first holds the new values of each changed weight, by the weight's name
    in `base`. The second maps the name of each adapter tensor to the name in `base` of the weight
    that the tensor changes.

    Checkpoints of one model may use different names for a weight. Two names mean the same weight if
    `current_name` returns the same name for them. Raises WeightsError if an adapter tensor lacks
    its partner, or if `base` lacks a weight of the right shape.
    """
    names = {current_name(name): name for name in base}
    weights, went = {}, {}
    for layer in (name.removesuffix(DOWN) for name in adapter if name.endswith(DOWN)):
        name = names.get(current_name(f"{layer}.weight"))
        down, up = adapter[f"{layer}{DOWN}"], adapter.get(f"{layer}{UP}")
        weight = None if name is None else base[name]
        if name is None or weight is None or up is None or _misfit(weight, down, up):
            raise WeightsError(
                f"the adapter of {layer} does not fit the base policy; use one policy.base for both"
            )
        weights[name] = fold(weight, down, up, scale)
        went |= {f"{layer}{DOWN}": name, f"{layer}{UP}": name}
    return weights, went


def _misfit(weight: Tensor, down: Tensor, up: Tensor) -> bool:
    return (up.shape[0], down.shape[1]) != tuple(weight.shape) or up.shape[1] != down.shape[0]
