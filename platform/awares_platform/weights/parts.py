"""The slices of the weights that one learner rank publishes: flat CPU tensors, ready to encode.

replicated tensors (ZeRO 0 to 2):  |-- rank 0 --|-- rank 1 --|  equal cuts of all tensors end to end
partitioned tensors (ZeRO 3):      each rank publishes the slice of each tensor that it owns
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

PIECE_ELEMENTS = 16 << 20
"""Most elements of a piece, the unit of encoding, hashing and decoding."""


@dataclass(frozen=True, slots=True)
class Part:
    """A slice of the flattened tensor `name`, from element `start`; `shape` is the whole tensor's.

    `values` is flat and on the CPU. It belongs to the publisher from now on: pass a copy of
    memory that training goes on to change.

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


def whole_parts(state: Mapping[str, Tensor]) -> list[Part]:
    """Each tensor of a state as one part. CPU tensors are not copied."""
    return [
        Part(name, tuple(tensor.shape), 0, tensor.detach().to("cpu").contiguous().reshape(-1))
        for name, tensor in state.items()
    ]


def even_parts(
    named: Sequence[tuple[str, Tensor]], rank: int, ranks: int, dtype: torch.dtype
) -> Iterator[Part]:
    """The parts of `rank` if every rank holds every tensor: an equal number of elements each.

    The parts are copies. Floating-point values are cast to `dtype`.
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
    """A copy on the CPU. Floating-point values are cast to `dtype`, others keep their type."""
    kept = dtype if values.is_floating_point() else values.dtype
    return values.detach().to("cpu", kept, copy=True)


def split(parts: Iterable[Part]) -> Iterator[Part]:
    """The parts cut into pieces of at most PIECE_ELEMENTS elements."""
    for part in parts:
        for start in range(0, max(1, part.values.numel()), PIECE_ELEMENTS):
            values = part.values[start : start + PIECE_ELEMENTS]
            yield replace(part, start=part.start + start, values=values)
