"""Cuts the weights into the parts that each learner rank publishes, as flat tensors on the CPU.

At ZeRO stages 0 to 2, every rank holds every tensor. The concatenation of all tensors is then cut
into one slice for each rank. The lengths of two slices differ by at most one element:

    |-- rank 0 --|-- rank 1 --|-- rank 2 --|

At ZeRO stage 3, each rank holds a slice of each tensor, and publishes the slices that it holds.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

PIECE_ELEMENTS = 16 << 20
"""Maximum number of elements of a piece. Each piece is encoded, hashed and decoded separately."""


@dataclass(frozen=True, slots=True)
class Part:
    """A slice of the flattened tensor `name` that begins at element `start`.

    The publisher keeps `values` without a copy, so callers must not change them later.

    Example:
        Part("lm_head.weight", (320, 128), 20480, values)  # the second half
    """

    name: str
    shape: tuple[int, ...]
    """The shape of the whole tensor."""
    start: int
    values: Tensor
    """The elements of the slice, flat and on the CPU."""

    @property
    def end(self) -> int:
        """The index of the element after the slice."""
        return self.start + self.values.numel()


def whole_parts(state: Mapping[str, Tensor]) -> list[Part]:
    """Return each tensor of a state as one part. Contiguous CPU tensors are not copied."""
    return [
        Part(name, tuple(tensor.shape), 0, tensor.detach().to("cpu").contiguous().reshape(-1))
        for name, tensor in state.items()
    ]


def even_parts(
    named: Sequence[tuple[str, Tensor]], rank: int, ranks: int, dtype: torch.dtype
) -> Iterator[Part]:
    """Yield the parts that rank `rank` publishes.

    Every rank holds all the tensors in `named`. The numbers of elements that two ranks publish
    differ by at most one. The parts are copies. Floating-point values are cast to `dtype`.
    """
    total = sum(tensor.numel() for _, tensor in named)
    first, last = total * rank // ranks, total * (rank + 1) // ranks
    offset = 0
    for name, tensor in named:
        start, end = max(0, first - offset), min(tensor.numel(), last - offset)
        if start < end or (tensor.numel() == 0 and rank == 0):
            values = copy_to_cpu(tensor.detach().reshape(-1)[start:end], dtype)
            yield Part(name, tuple(tensor.shape), start, values)
        offset += tensor.numel()


def copy_to_cpu(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Copy a tensor to the CPU. Floating-point values are cast to `dtype`."""
    kept = dtype if values.is_floating_point() else values.dtype
    return values.detach().to("cpu", kept, copy=True)


def split(parts: Iterable[Part]) -> Iterator[Part]:
    """Cut the parts into pieces of at most PIECE_ELEMENTS elements, and yield the pieces."""
    for part in parts:
        for start in range(0, max(1, part.values.numel()), PIECE_ELEMENTS):
            values = part.values[start : start + PIECE_ELEMENTS]
            yield replace(part, start=part.start + start, values=values)
