"""Adds an adapter's output to the output of its layer, so that a small change is not lost.

peft and vLLM round a layer's output to 16 bits and then add the adapter's output. A change
below half a unit in the last place (ulp) then always vanishes. An early LoRA update is that small:
in a layer of width 3,584, only 1.7 % of the update is left after one step at learning rate 1e-5.

The layer has already rounded its output, so the exact output is not known. `add_once` replaces the
lost remainder by a fixed pseudo-random number between -1/2 ulp and 1/2 ulp, and then rounds the sum
once. Most small changes still vanish, but some move the result by a whole ulp, and the mean change
is the adapter's output. Without a change the result is the layer's output, bit for bit.
Source: Gupta et al., arXiv 1502.02551, section 3.1 (stochastic rounding).
"""

from typing import Any, cast

import torch
from torch import Tensor

_MANTISSA = {torch.bfloat16: 7, torch.float16: 10}
"""The number of stored bits of the mantissa, for the data types in which changes can be lost."""
_EXPONENT = 0x7F800000
"""The bits of a float32 that hold the exponent."""
CHUNK = 1 << 22
"""The number of elements that are added at a time. They need 112 MiB of temporary tensors."""


def add_once(output: Tensor, change: Tensor) -> Tensor:
    """Return output + change in the data type of `output`, rounded without bias.

    Both tensors have the shape (..., width). The gradient is that of the plain sum. Rows do not
    affect each other.
    """
    if output.dtype not in _MANTISSA:
        return output + change
    if torch.compiler.is_compiling():
        # The compiler fuses the steps of `_sum`, so no float32 tensor is written to memory. The
        # compiler could not compile the loop of `_AddOnce` over an unknown number of rows.
        return _sum(output, change)
    return cast(Tensor, _AddOnce.apply(output, change))


class _AddOnce(torch.autograd.Function):
    """Adds a few rows at a time, to bound the memory.

    The temporary 32-bit tensors of a row take 14 times as many bytes as the row in 16 bits.
    """

    @staticmethod
    def forward(_: Any, output: Tensor, change: Tensor) -> Tensor:
        width = output.shape[-1]
        result = torch.empty_like(output, memory_format=torch.contiguous_format)
        rows = max(1, CHUNK // max(1, width))
        parts = (tensor.reshape(-1, width).split(rows) for tensor in (output, change, result))
        for output_RW, change_RW, result_RW in zip(*parts, strict=True):
            result_RW.copy_(_sum(output_RW, change_RW))
        return result

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        return gradient, gradient


def _sum(output: Tensor, change: Tensor) -> Tensor:
    """Return the result of `add_once` for 16-bit tensors, computed for all rows at once."""
    exact = output.detach().float()
    # The ulp below a power of two is half of the ulp above it. At a power of two, take the smaller
    # ulp, so that without a change the sum rounds back to `output`.
    power = ((exact.abs().view(torch.int32) - 1).clamp(min=0) & _EXPONENT).view(torch.float32)
    ulp = power * 2.0 ** -_MANTISSA[output.dtype]
    remainder = _remainder(output.detach()) * ulp
    return (output.float() + change.float() + remainder).to(output.dtype)


def _remainder(output: Tensor) -> Tensor:
    """Return a pseudo-random number in (-0.5, 0.5) for each element.

    The number is a hash of the element's value and column. It has few enough bits to keep the sum
    exact in float32.
    """
    bits = 22 - _MANTISSA[output.dtype]
    columns = torch.arange(output.shape[-1], device=output.device, dtype=torch.int32)
    mixed = output.view(torch.int16).to(torch.int32) * 40503 + columns * 1597334677
    for shift, factor in ((15, 739982445), (12, 695872825)):
        mixed = (mixed ^ ((mixed >> shift) & ((1 << (32 - shift)) - 1))) * factor
    # The upper bits of `mixed` are the most random.
    return ((mixed >> 16) & ((1 << bits) - 1)).float() / (1 << bits) - 0.5 + 0.5 / (1 << bits)
