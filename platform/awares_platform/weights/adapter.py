"""Reads and writes the LoRA adapter of a run, and folds the adapter into the base weights.

A run that trains an adapter publishes only the adapter, under the names of peft's parameters. The
adapter of a layer x has two tensors: x.lora_A.default.weight of shape (rank, in) and
x.lora_B.default.weight of shape (out, rank).
Source: Hu et al., arXiv 2106.09685, section 4.1.

A reader applies an adapter in one of two ways:

    write_peft     The adapter stays separate from the base weights. It is written in the layout of
                   peft's save_pretrained, which peft and vLLM load.
    fold_adapter   The adapter is added to the base weights. This addition loses small updates
                   unless the sum is stored in float32.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from awares_platform.weights.manifest import Shapes, WeightsError

ADAPTER = "default"
"""The adapter's name, which is a part of peft's parameter names."""
DOWN = f".lora_A.{ADAPTER}.weight"
"""The suffix of the name of a lora_A tensor, whose shape is (rank, in)."""
UP = f".lora_B.{ADAPTER}.weight"
"""The suffix of the name of a lora_B tensor, whose shape is (out, rank)."""
CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
"""The two files of an adapter's directory in peft's layout."""

_PREFIX = "base_model.model."
"""The prefix of every tensor name in peft's files."""


def is_adapter(name: str) -> bool:
    """Return whether the tensor `name` belongs to an adapter."""
    return name.endswith((DOWN, UP))


def fold(
    weight: Tensor, down: Tensor, up: Tensor, scale: float, dtype: torch.dtype | None = None
) -> Tensor:
    """Return weight + scale * up @ down, computed in float32 and then rounded once to `dtype`.

    The default of `dtype` is the weight's dtype. Rounding to bfloat16 loses small updates.
    """
    return (weight.float() + scale * (up.float() @ down.float())).to(dtype or weight.dtype)


def fold_adapter(
    adapter: Mapping[str, Tensor],
    scale: float,
    base: Mapping[str, Tensor],
    current_name: Callable[[str], str],
    dtype: torch.dtype | None = None,
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Fold (add) an adapter into the base weights that it changes.

    Return the changed weights by name, and a mapping from each adapter tensor to the name of the
    weight that it changes. See `fold` and `adapted` for the arguments.
    """
    # Reading a tensor of `base` may be slow, so only the adapted weights are read.
    wanted = {current_name(f"{layer}.weight") for layer in _layers(adapter)}
    shapes = {name: tuple(base[name].shape) for name in base if current_name(name) in wanted}
    weights, went = {}, {}
    for layer, name in adapted(shapes_of(adapter), shapes, current_name).items():
        down, up = adapter[f"{layer}{DOWN}"], adapter[f"{layer}{UP}"]
        weights[name] = fold(base[name], down, up, scale, dtype)
        went |= {f"{layer}{DOWN}": name, f"{layer}{UP}": name}
    return weights, went


def adapted(adapter: Shapes, base: Shapes, current_name: Callable[[str], str]) -> dict[str, str]:
    """Return a mapping from each layer of an adapter to the name of the layer's weight in `base`.

    `current_name` maps the different names of a weight to a single name. Raises WeightsError if the
    adapter does not fit `base`.
    """
    names = {current_name(name): name for name in base}
    found = {}
    for layer in _layers(adapter):
        name = names.get(current_name(f"{layer}.weight"))
        down, up = adapter.get(f"{layer}{DOWN}"), adapter.get(f"{layer}{UP}")
        if name is None or down is None or up is None or not _fits(base[name], down, up):
            raise WeightsError(
                f"the adapter of {layer} does not fit the base policy; use one policy.base for both"
            )
        found[layer] = name
    return found


def shapes_of(tensors: Mapping[str, Tensor]) -> Shapes:
    """Return the shape of each tensor by name."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def rank_of(adapter: Shapes) -> int:
    """Return the largest rank of the adapter's layers, or 0 if there are none."""
    return max((shape[0] for name, shape in adapter.items() if name.endswith(DOWN)), default=0)


def write_peft(
    adapter: Mapping[str, Tensor], scale: float, directory: Path, base: str = ""
) -> None:
    """Write an adapter to an empty directory, in the layout that peft and vLLM load.

    `scale` is lora_alpha / rank. `base` names the policy to which the adapter belongs. All layers
    must have the same rank.
    """
    from safetensors.torch import save_file

    rank = rank_of(shapes_of(adapter))
    config: dict[str, Any] = {
        "peft_type": "LORA",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": scale * rank,
        "lora_dropout": 0.0,
        "bias": "none",
        # List full paths, because the vision tower may also have layers named "q_proj".
        "target_modules": _layers(adapter),
        "inference_mode": True,
    }
    (directory / CONFIG_FILE).write_text(json.dumps(config, indent=1))
    save_file(
        {_peft_name(name): tensor.contiguous() for name, tensor in adapter.items()},
        directory / WEIGHTS_FILE,
        metadata={"format": "pt"},
    )


def read_peft(directory: Path) -> tuple[dict[str, Tensor], float]:
    """Return the tensors and the scale of an adapter in a directory that `write_peft` wrote.

    Raises WeightsError if a file is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    rank, alpha = _settings(directory)
    try:
        loaded = load_file(directory / WEIGHTS_FILE)
    except (OSError, ValueError, SafetensorError) as error:
        raise _damaged(directory, error) from error
    tensors = {_own_name(name): tensor for name, tensor in loaded.items()}
    if (found := rank_of(shapes_of(tensors))) != rank:
        raise _damaged(directory, f"{CONFIG_FILE} states rank {rank}, its tensors have {found}")
    return tensors, alpha / rank


def rank_in(directory: Path) -> int:
    """Return the rank of the adapter in `directory`, from the configuration in peft's layout.

    Raises WeightsError if the configuration is missing or damaged.
    """
    return _settings(directory)[0]


def _settings(directory: Path) -> tuple[int, float]:
    """Return the rank and alpha of an adapter in peft's layout."""
    try:
        config = json.loads((directory / CONFIG_FILE).read_bytes())
        rank, alpha = config["r"], config["lora_alpha"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(directory, error) from error
    if type(rank) is not int or rank < 1:
        raise _damaged(directory, f"{CONFIG_FILE} states r={rank!r}, not a positive integer")
    if type(alpha) not in (int, float) or not math.isfinite(alpha):
        raise _damaged(directory, f"{CONFIG_FILE} states lora_alpha={alpha!r}, not a finite number")
    return rank, alpha


def _damaged(directory: Path, reason: object) -> WeightsError:
    return WeightsError(f"{directory} holds no adapter ({reason}); export it again")


def _layers(adapter: Iterable[str]) -> list[str]:
    """Return the sorted names of the layers whose tensors have the names in `adapter`."""
    return sorted({name.removesuffix(DOWN).removesuffix(UP) for name in adapter})


def _peft_name(name: str) -> str:
    """Return the name of an adapter tensor in peft's files, which omit the adapter's name."""
    return _PREFIX + name.removesuffix(f".{ADAPTER}.weight") + ".weight"


def _own_name(name: str) -> str:
    """Invert `_peft_name`."""
    return f"{name.removeprefix(_PREFIX).removesuffix('.weight')}.{ADAPTER}.weight"


def _fits(weight: tuple[int, ...], down: tuple[int, ...], up: tuple[int, ...]) -> bool:
    return (up[0], down[1]) == weight and up[1] == down[0]
