"""Measures a trainer: the FLOPs and padding of its passes, and the peak speed of its device."""

import re
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from awares.batch import Batch
from awares.family import ModelFamily, in_tower
from awares_platform.method.flops import ModelSizes, Pass, language_flops, tower_flops

_FIRST_LAYER = re.compile(r"\.layers\.0\.")
_PEAKS = {
    "B200": 2250e12,
    "H200": 989e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10": 125e12,
}
"""FLOPs per second of dense 16-bit matrix products, by a part of the GPU's name.

The values are from NVIDIA's data sheets. If a GPU exists in several form factors, the value is that
of SXM.
"""
_SIDE = {"cpu": 768, "cuda": 8192}
"""The side of the square matrices with which `measured_peak` measures a device."""


@dataclass(frozen=True, slots=True)
class LoadedSizes:
    """The sizes of a loaded model, as ModelSizes describes them.

    Example:
        LoadedSizes(layers=28, hidden=3584, layer_parameters=233057792, vision_parameters=676550144,
                    merge=2)
    """

    layers: int
    hidden: int
    layer_parameters: int
    vision_parameters: int
    merge: int


def sizes_of(model: Any, family: ModelFamily) -> LoadedSizes:
    """Return the sizes of a transformers model. LoRA adapters do not count."""
    text = model.config.get_text_config()
    counts = [
        (name, getattr(weight, "ds_numel", weight.numel()))
        for name, weight in model.named_parameters()
        if "lora_" not in name
    ]
    vision = sum(count for name, count in counts if in_tower(family, name))
    layer = sum(
        count for name, count in counts if _FIRST_LAYER.search(name) and not in_tower(family, name)
    )
    return LoadedSizes(
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        layer_parameters=layer,
        vision_parameters=vision,
        merge=getattr(model.config.vision_config, "spatial_merge_size", 1),
    )


@dataclass(frozen=True, slots=True)
class StepWork:
    """What a training step computes: the passes of the language model and the vision tower.

    Example:
        StepWork(sizes, language=Pass(2, 1, 1), tower=Pass(1, 0, 0), packed=False)
    """

    sizes: ModelSizes
    language: Pass
    """The language model's passes in one step."""
    tower: Pass
    """The vision tower's passes in one step."""
    packed: bool
    """True if the language model computes no padding."""

    def flops(self, batch: Batch) -> float:
        """Return the FLOPs of a batch without padding. The tower runs once per distinct image."""
        lengths = batch.attention_mask_BT.sum(1).tolist()
        language = sum(language_flops(self.sizes, length, self.language) for length in lengths)
        visual = _distinct_patches(batch) / self.sizes.merge**2
        return language + tower_flops(self.sizes, visual, self.tower)

    def tokens(self, batch: Batch) -> tuple[int, int]:
        """Return the number of tokens in a batch, and the number that the language model computes.

        The second number includes the padding. If `packed` is true, the two numbers are equal.
        """
        real = int(batch.attention_mask_BT.sum())
        return real, real if self.packed else batch.attention_mask_BT.numel()


def _distinct_patches(batch: Batch) -> int:
    patches: dict[int, int] = {}
    grids: Tensor = batch.image_grid_thw_I3.prod(1)
    for view, count in zip(batch.image_views_I.tolist(), grids.tolist(), strict=True):
        patches[view] = count
    return sum(patches.values())


def peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Return the FLOPs per second that `device` can reach.

    The value comes from the data sheet for known GPUs in 16 bits, and otherwise from measured
    matrix products. A CPU is measured in float32.
    """
    if device.type == "cuda" and dtype.itemsize == 2:
        name = torch.cuda.get_device_name(device)
        known = [peak for part, peak in _PEAKS.items() if re.search(rf"\b{part}\b", name)]
        if known:
            return known[0]
    return measured_peak(device, torch.float32 if device.type == "cpu" else dtype)


def measured_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Return the FLOPs per second of the fastest of four products of square matrices."""
    side = _SIDE.get(device.type, 1024)
    matrix = torch.ones(side, side, device=device, dtype=dtype)
    seconds = []
    for _ in range(4):
        _wait(device)
        started = time.perf_counter()
        torch.mm(matrix, matrix)
        _wait(device)
        seconds.append(time.perf_counter() - started)
    return 2 * side**3 / min(seconds)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
