"""Tests how processes divide the work of reading a weight version, and share its tensors."""

import multiprocessing
import os
import random
from dataclasses import dataclass
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import pytest
import torch

from awares.errors import AwaresError
from awares_platform.store.errors import StoreUnavailable
from awares_platform.weights.manifest import WeightsError
from awares_platform.weights.readers import ALONE, Alone, HostReaders, part, together
from tests.integration.process_group import process_group

RANKS = 2
LAYOUTS = [(torch.bfloat16, (3, 5)), (torch.float32, (0, 4)), (torch.int64, ()), (torch.bool, (7,))]


@dataclass
class Member(Alone):
    """One member of a group whose members never communicate."""

    rank: int
    ranks: int


@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
@pytest.mark.parametrize("count", [0, 1, 5, 200])
def test_every_item_belongs_to_one_reader_and_the_parts_are_even(ranks: int, count: int) -> None:
    random.seed(count)
    sizes = [random.choice((0, 1, 10, 100)) for _ in range(count)]
    parts = [
        part([*enumerate(sizes)], lambda item: item[1], Member(n, ranks)) for n in range(ranks)
    ]
    found = [item for one in parts for item in one if item[1]]
    assert found == [(index, size) for index, size in enumerate(sizes) if size]
    loads = [sum(size for _, size in one) for one in parts]
    assert all(abs(load - sum(sizes) / ranks) <= 100 for load in loads)


def test_a_single_reader_takes_all_and_raises_its_own_error() -> None:
    assert part([0, 1], lambda item: item, ALONE) == [0, 1]
    assert together(ALONE, lambda: 3) == 3
    with pytest.raises(WeightsError, match="ZeroDivisionError: ") as caught:
        together(ALONE, lambda: 1 // 0)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def read(rank: int, meeting: Path, found: "Queue[tuple[int, dict[str, Any]]]") -> None:
    with process_group(meeting, rank, RANKS):
        readers = HostReaders()
        tensors = readers.empty(LAYOUTS)
        for index, tensor in enumerate(tensors):
            if index % RANKS == rank:
                tensor.fill_(index + 1)
        together(readers, lambda: None)
        said: dict[str, Any] = {
            "layouts": [(tensor.dtype, tuple(tensor.shape)) for tensor in tensors],
            "values": [tensor.double().flatten().tolist() for tensor in tensors],
            "gathered": readers.gather(rank),
            "shared": shared(),
        }
        for name, error in {"store": StoreUnavailable("gone"), "other": ValueError("odd")}.items():

            def fail(error: Exception = error) -> None:
                if rank == 1:
                    raise error

            try:
                together(readers, fail)
            except AwaresError as caught:
                said[name] = (type(caught).__name__, str(caught))
        del tensors, tensor
        readers.gather(None)
        said["shared after"] = shared()
        found.put((rank, said))


def shared() -> int:
    """Return how many memory mappings and file descriptors of shared weights this process has."""
    lines = Path("/proc/self/maps").read_text("utf-8").splitlines()
    open_files = [
        os.readlink(path) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()
    ]
    return sum("awares-weights" in name for name in (*lines, *open_files))


def test_processes_share_tensors_and_errors(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    found: Queue[tuple[int, dict[str, Any]]] = context.Queue()
    meeting = tmp_path / "meeting"
    ranks = [context.Process(target=read, args=(rank, meeting, found)) for rank in range(RANKS)]
    for rank in ranks:
        rank.start()
    said = dict(found.get(timeout=240) for _ in ranks)
    for rank in ranks:
        rank.join(240)
        assert rank.exitcode == 0
    for one in said.values():
        assert one["layouts"] == LAYOUTS
        assert one["values"] == [[1.0] * 15, [], [3.0], [1.0] * 7]
        assert one["gathered"] == [0, 1]
        # Each of the three nonempty tensors has one mapping and no open descriptor. After the
        # tensors are deleted, no mapping is left.
        assert (one["shared"], one["shared after"]) == (3, 0)
        assert one["store"] == ("StoreUnavailable", "gone")
        assert one["other"] == ("WeightsError", "ValueError: odd")
