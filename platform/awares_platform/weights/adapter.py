"""LoRA adapters on the wire: a run that trains an adapter publishes it alone, a reader folds it into the base policy that it has.

An adapter of the layer x is the tensors x.down.weight (rank, in) and x.up.weight (out, rank). Source: Hu et al., arXiv 2106.09685.
"""

import re
from collections.abc import Mapping

from torch import Tensor

from awares_platform.weights.manifest import WeightsError

_DOWN, _UP = ".down.weight", ".up.weight"
_OLDER = (
    (re.compile(r"^visual\."), "model.visual."),
    (re.compile(r"^model\.(?!language_model\.|visual\.)"), "model.language_model."),
)


def is_adapter(name: str) -> bool:
    """Whether a tensor is one of an adapter's two."""
    return name.endswith((_DOWN, _UP))


def fold(weight: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
    """weight + scale * up @ down, computed in float32, in the weight's precision."""
    return (weight.float() + scale * (up.float() @ down.float())).to(weight.dtype)


def canonical(name: str) -> str:
    """A tensor's name as transformers writes it today; Qwen2.5-VL's own checkpoints have older ones."""
    for pattern, newer in _OLDER:
        name = pattern.sub(newer, name)
    return name


def folded(
    adapter: Mapping[str, Tensor], scale: float, base: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The weights that the adapter changes, whole, under the base's names; and which of them each of the adapter's tensors went into.

    Raises WeightsError where the adapter does not fit the base.
    """
    names = {canonical(name): name for name in base}
    weights, went = {}, {}
    for layer in (name.removesuffix(_DOWN) for name in adapter if name.endswith(_DOWN)):
        name, down, up = (
            names.get(canonical(f"{layer}.weight")),
            adapter[f"{layer}{_DOWN}"],
            adapter.get(f"{layer}{_UP}"),
        )
        weight = None if name is None else base[name]
        if name is None or weight is None or up is None or _misfit(weight, down, up):
            raise WeightsError(
                f"the adapter of {layer} does not fit the policy that it is folded into; use one policy.base for both"
            )
        weights[name] = fold(weight, down, up, scale)
        went |= {f"{layer}{_DOWN}": name, f"{layer}{_UP}": name}
    return weights, went


def _misfit(weight: Tensor, down: Tensor, up: Tensor) -> bool:
    return (up.shape[0], down.shape[1]) != tuple(weight.shape) or up.shape[1] != down.shape[0]
