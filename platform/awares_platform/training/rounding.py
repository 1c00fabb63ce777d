"""Adds an adapter's output to its layer's output, so that a small change is not lost.

peft and vLLM round a layer's output to 16 bits and then add the adapter's output. A change
below half a unit in the last place (ulp) then always vanishes. An early LoRA update is that small:
in a layer 3,584 wide, 1.7 % of the update is left after one step at learning rate 1e-5.

If the exact sum were rounded once, most small changes would still vanish, but some would move the
result by a whole ulp, and the mean would be right. The layer's exact output is no longer known. So
`add_once` replaces the lost remainder by a fixed pseudo-random number of less than half an ulp. The
expected change is then the adapter's output. Without a change the result is the layer's output, bit
for bit.
Source: Gupta et al., arXiv 1502.02551, section 3.1 (stochastic rounding).
"""

from typing import Any, cast

import torch
from torch import Tensor

_MANTISSA = {torch.bfloat16: 7, torch.float16: 10}
"""Stored bits of the mantissa, for the data types that need this file."""
_EXPONENT = 0x7F800000
"""The bits of a float32 that hold the exponent."""
CHUNK = 1 << 22
"""The number of elements that are added at a time. Their float32 tensors take 112 MiB."""


def add_once(output: Tensor, change: Tensor) -> Tensor:
    """Return output + change in the data type of `output`, with the right expected value.

    Both have the shape (..., width). In float32 this is a plain sum. The gradient is that of a sum.
    The result depends on no other row, so a batch gives the same result as its rows one by one.
    """
    if output.dtype not in _MANTISSA:
        return output + change
    if torch.compiler.is_compiling():
        # The compiler fuses the steps of `_sum`, so no float32 tensor reaches the memory. It cannot
        # compile a loop over an unknown number of rows.
        return _sum(output, change)
    return cast(Tensor, _AddOnce.apply(output, change))


class _AddOnce(torch.autograd.Function):
    """Adds a few rows at a time, because the 32-bit tensors of a row take 14 times its bytes."""

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
    """Return the sum of all rows at once, as `add_once` describes it."""
    exact = output.detach().float()
    # Below a power of two the ulp is half as large as above it. The smaller one is safe.
    power = ((exact.abs().view(torch.int32) - 1).clamp(min=0) & _EXPONENT).view(torch.float32)
    ulp = power * 2.0 ** -_MANTISSA[output.dtype]
    remainder = _remainder(output.detach()) * ulp
    return (output.float() + change.float() + remainder).to(output.dtype)


def _remainder(output: Tensor) -> Tensor:
    """Return a number in (-0.5, 0.5) for each element, made from its value and its column.

    The number has as few bits as needed for an exact sum with the element in float32.
    """
    bits = 22 - _MANTISSA[output.dtype]
    columns = torch.arange(output.shape[-1], device=output.device, dtype=torch.int32)
    mixed = output.view(torch.int16).to(torch.int32) * 40503 + columns * 1597334677
    for shift, factor in ((15, 739982445), (12, 695872825)):
        mixed = (mixed ^ ((mixed >> shift) & ((1 << (32 - shift)) - 1))) * factor
    # The upper bits are the best mixed ones.
    return ((mixed >> 16) & ((1 << bits) - 1)).float() / (1 << bits) - 0.5 + 0.5 / (1 << bits)
