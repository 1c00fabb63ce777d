"""What one rank of the learner owns of the weights: parts of flattened tensors, on the CPU, in the precision that is served.

replicated tensors (ZeRO 0 to 2):  |--- rank 0 ---|--- rank 1 ---|   cut evenly, over all tensors laid end to end
partitioned tensors (ZeRO 3):      each tensor has a slice per rank, and the rank hands over the slices that it has anyway
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

PIECE_ELEMENTS = 16 << 20  # what is encoded, hashed and decoded at a time


@dataclass(frozen=True, slots=True)
class Part:
    """Elements from `start` on of the flattened tensor `name`, of `shape` as a whole. `values` is flat and on the CPU; whoever makes a Part
    gives its memory away, so what changes while training goes on has to be copied.

    Example:
        Part("lm_head.weight", (320, 128), 20480, values)  # the second half
    """

    name: str
    shape: tuple[int, ...]
    start: int
    values: Tensor

    @property
    def end(self) -> int:
        """The element after the last one."""
        return self.start + self.values.numel()


def whole(state: Mapping[str, Tensor]) -> list[Part]:
    """Every tensor of a state as one part. Shares the memory of CPU tensors."""
    return [
        Part(name, tuple(tensor.shape), 0, tensor.detach().to("cpu").contiguous().reshape(-1))
        for name, tensor in state.items()
    ]


def even(
    named: Sequence[tuple[str, Tensor]], rank: int, ranks: int, dtype: torch.dtype
) -> Iterator[Part]:
    """Rank's share of tensors that every rank holds whole: equal numbers of elements, floating point ones cast to `dtype`; copies."""
    total = sum(tensor.numel() for _, tensor in named)
    first, last = total * rank // ranks, total * (rank + 1) // ranks
    offset = 0
    for name, tensor in named:
        start, end = max(0, first - offset), min(tensor.numel(), last - offset)
        if start < end or (tensor.numel() == 0 and rank == 0):
            yield Part(
                name,
                tuple(tensor.shape),
                start,
                copied(tensor.detach().reshape(-1)[start:end], dtype),
            )
        offset += tensor.numel()


def copied(values: Tensor, dtype: torch.dtype) -> Tensor:
    """A copy on the CPU; floating point in `dtype`, other kinds as they are."""
    return values.detach().to(
        "cpu", dtype if values.is_floating_point() else values.dtype, copy=True
    )


def pieces(parts: Iterable[Part]) -> Iterator[Part]:
    """The parts, none longer than PIECE_ELEMENTS."""
    for part in parts:
        for start in range(0, max(1, part.values.numel()), PIECE_ELEMENTS):
            yield replace(
                part, start=part.start + start, values=part.values[start : start + PIECE_ELEMENTS]
            )
