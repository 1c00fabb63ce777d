"""Published LoRA adapters, and how a reader folds one into its base policy.

A run that trains an adapter publishes the adapter alone. The adapter of a layer x has two tensors:
x.down.weight of shape (rank, in) and x.up.weight of shape (out, rank).
Source: Hu et al., arXiv 2106.09685, section 4.1.
"""

import re
from collections.abc import Mapping

from torch import Tensor

from awares_platform.weights.manifest import WeightsError

_DOWN, _UP = ".down.weight", ".up.weight"
_OLDER_NAMES = (
    (re.compile(r"^visual\."), "model.visual."),
    (re.compile(r"^model\.(?!language_model\.|visual\.)"), "model.language_model."),
)


def is_adapter(name: str) -> bool:
    """Whether the tensor `name` belongs to an adapter."""
    return name.endswith((_DOWN, _UP))


def fold(weight: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
    """weight + scale * up @ down, computed in float32 and cast to the weight's dtype."""
    return (weight.float() + scale * (up.float() @ down.float())).to(weight.dtype)


def canonical(name: str) -> str:
    """A tensor's name in today's transformers. Qwen2.5-VL's own checkpoints use older names."""
    for pattern, newer in _OLDER_NAMES:
        name = pattern.sub(newer, name)
    return name


def fold_adapter(
    adapter: Mapping[str, Tensor], scale: float, base: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Fold an adapter into the base weights that it changes.

    Returns the changed weights by the base's names, and for each adapter tensor the name of the
    weight that it changed. Raises WeightsError if the adapter does not fit the base.
    """
    names = {canonical(name): name for name in base}
    weights, went = {}, {}
    for layer in (name.removesuffix(_DOWN) for name in adapter if name.endswith(_DOWN)):
        name = names.get(canonical(f"{layer}.weight"))
        down, up = adapter[f"{layer}{_DOWN}"], adapter.get(f"{layer}{_UP}")
        weight = None if name is None else base[name]
        if name is None or weight is None or up is None or _misfit(weight, down, up):
            raise WeightsError(
                f"the adapter of {layer} does not fit the base policy; use one policy.base for both"
            )
        weights[name] = fold(weight, down, up, scale)
        went |= {f"{layer}{_DOWN}": name, f"{layer}{_UP}": name}
    return weights, went


def _misfit(weight: Tensor, down: Tensor, up: Tensor) -> bool:
    return (up.shape[0], down.shape[1]) != tuple(weight.shape) or up.shape[1] != down.shape[0]
