"""Lets the worker processes of one engine read a version together.

    worker 0   fetch, decode and verify one half of the pieces ---+
    worker 1   fetch, decode and verify the other half -----------+--> tensors in shared memory

A tensor-parallel engine thus downloads a version once, and the host holds it once. All workers of
the engine must run on one host.
"""

import os
from collections.abc import Callable, Sequence
from math import prod
from typing import Any, Protocol, TypeVar

import torch
import torch.distributed
from torch import Tensor

from awares.errors import AwaresError
from awares_platform.weights.manifest import WeightsError

_BATCH = 64
"""The maximum number of tensors that are allocated at once.

Each tensor takes a file descriptor until all processes have mapped the tensor's memory.
"""

Layout = tuple[torch.dtype, tuple[int, ...]]
"""The data type and the shape of a tensor."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class Readers(Protocol):
    """One process's view of the group of processes that read a version together."""

    rank: int
    """The number of this process in the group, counted from 0."""
    ranks: int
    """The number of processes in the group."""

    def gather(self, value: Any) -> list[Any]:
        """Return the value of every process, by rank. All processes must call this method."""
        ...

    def empty(self, layouts: Sequence[Layout]) -> list[Tensor]:
        """Return one new tensor for each layout. All processes share the tensors' memory.

        All processes must call this method.
        """
        ...


class Alone:
    """The group of a process that reads a version by itself.

    Example:
        Alone().gather("error")  # ["error"]
    """

    rank = 0
    ranks = 1

    def gather(self, value: Any) -> list[Any]:
        """Return a list that holds only `value`."""
        return [value]

    def empty(self, layouts: Sequence[Layout]) -> list[Tensor]:
        """Return one new tensor for each layout."""
        return [torch.empty(shape, dtype=dtype) for dtype, shape in layouts]


ALONE = Alone()


class HostReaders:
    """The processes of torch's default process group. All of them must run on this host.

    The object creates its own gloo group, so that other threads can use the default group.

    Example:
        HostReaders()  # in every process, after torch.distributed.init_process_group
    """

    def __init__(self) -> None:
        # Declare Any: `new_group` would return another type in a process outside the group, but
        # every process is in this group.
        self._group: Any = torch.distributed.new_group(backend="gloo")
        self.rank = torch.distributed.get_rank(self._group)
        self.ranks = torch.distributed.get_world_size(self._group)

    def gather(self, value: Any) -> list[Any]:
        """Return the value of every process, by rank. All processes must call this method."""
        values: list[Any] = [None] * self.ranks
        torch.distributed.all_gather_object(values, value, self._group)
        return values

    def empty(self, layouts: Sequence[Layout]) -> list[Tensor]:
        """Return one new tensor for each layout. All processes share the tensors' memory.

        All processes must call this method. Anonymous files hold the memory, which does not count
        against the size of /dev/shm.
        """
        found: list[Tensor] = []
        for start in range(0, len(layouts), _BATCH):
            found += self._shared(layouts[start : start + _BATCH])
        return found

    def _shared(self, layouts: Sequence[Layout]) -> list[Tensor]:
        """Return a few shared tensors. Process 0 allocates the memory of these tensors."""
        own: list[int] = []
        try:
            if self.rank == 0:
                together(self, lambda: own.extend(_allocated(layout) for layout in layouts))
            else:
                together(self, lambda: None)
            paths = self.gather([f"/proc/{os.getpid()}/fd/{descriptor}" for descriptor in own])[0]
            # `together` returns when all processes have mapped the memory. Process 0 then closes
            # its descriptors.
            return together(self, lambda: [*map(_mapped, paths, layouts)])
        finally:
            for descriptor in own:
                os.close(descriptor)


def together(readers: Readers, work: Callable[[], Result]) -> Result:
    """Run `work` in every process. If it fails in any process, raise the error in every process.

    Every process must call this function. An error that is not an AwaresError becomes a
    WeightsError.
    """
    result: Any = None
    error: AwaresError | None = None
    try:
        result = work()
    except AwaresError as caught:
        error = caught
    except Exception as caught:
        error = WeightsError(f"{type(caught).__name__}: {caught}")
        error.__cause__ = caught
    for failed in readers.gather(error):
        if failed is not None:
            raise failed
    return result


def part(items: Sequence[Item], size: Callable[[Item], int], readers: Readers) -> list[Item]:
    """Return this process's share of `items`, which consists of consecutive items.

    All shares have about the same total size. Items of size 0 may belong to no share.
    """
    if readers.ranks == 1:
        return [*items]
    total, end = sum(size(item) for item in items), 0
    found: list[Item] = []
    for item in items:
        start, end = end, end + size(item)
        # The position of an item's middle decides to which share the item belongs. The size of a
        # share thus differs from the mean by at most the size of the largest item.
        if end > start and (start + end) * readers.ranks // (2 * total) == readers.rank:
            found.append(item)
    return found


def _allocated(layout: Layout) -> int:
    """Return the descriptor of a new anonymous file, which is the memory of a tensor."""
    descriptor = os.memfd_create("awares-weights")
    dtype, shape = layout
    os.ftruncate(descriptor, dtype.itemsize * prod(shape))
    return descriptor


def _mapped(path: str, layout: Layout) -> Tensor:
    dtype, shape = layout
    if not prod(shape):
        return torch.empty(shape, dtype=dtype)
    return torch.from_file(path, shared=True, size=prod(shape), dtype=dtype).reshape(shape)
