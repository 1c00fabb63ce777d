"""Tests that two processes each read a part of a weight version, and exchange the parts."""

import multiprocessing
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from awares.errors import AwaresError
from awares_platform.config.store import StoreConfig
from awares_platform.store import ObjectStore
from awares_platform.weights import Publisher, Subscriber
from awares_platform.weights.readers import HostReaders
from tests.integration.counting import CountingStore
from tests.integration.process_group import process_group

pytestmark = pytest.mark.integration
RANKS, ELEMENTS = 2, 50_000
Found = dict[str, Any]


class DamagingStore(CountingStore):
    """A store client that flips a bit in each of the next `damaged` ranges that it reads."""

    damaged = 0

    def get_range(self, key: str, start: int, end: int, *, if_match: str | None = None) -> bytes:
        data = super().get_range(key, start, end, if_match=if_match)
        if self.damaged:
            self.damaged -= 1
            return bytes([data[0] ^ 1, *data[1:]])
        return data


def states() -> list[dict[str, Tensor]]:
    """Return the states of three versions.

    Versions 2 and 3 each change some elements in about half of the tensors.
    """
    torch.manual_seed(0)
    found = [{f"layer.{index}": torch.randn(ELEMENTS).bfloat16() for index in range(8)}]
    for version in (1, 2):
        state = {name: tensor.clone() for name, tensor in found[-1].items()}
        for index in range(version, 8, 2):
            state[f"layer.{index}"][torch.randperm(ELEMENTS)[:500]] += 1
        found.append(state)
    return found


def read(
    rank: int,
    directory: Path,
    config: StoreConfig,
    damaged: dict[int, int],
    found: "Queue[tuple[int, Found]]",
) -> None:
    """Read version 1, and then version 3 by two deltas, as one rank of a process group.

    `damaged` maps a rank to a number n. The first n range reads of deltas by this rank return
    damaged bytes.
    """
    with process_group(directory / "meeting", rank, RANKS):
        readers, store = HostReaders(), DamagingStore(config, directory / "reads")
        subscriber = Subscriber(store, "run")
        subscriber.head()
        held = subscriber.receive(1, None, readers)
        store.damaged = damaged.get(rank, 0)
        said: Found = {"anchor": held.size}
        try:
            received = subscriber.receive(3, held, readers)
        except AwaresError as error:
            said["error"] = f"{type(error).__name__}: {error}"
        else:
            said |= {
                "size": received.size,
                "hops": received.hops,
                "detours": received.detours,
                "state": {
                    name: tensor.view(torch.int16).tolist()
                    for name, tensor in received.state.items()
                },
            }
        found.put((rank, said))


def run(store: ObjectStore, directory: Path, damaged: dict[int, int]) -> list[Found]:
    publisher = Publisher(store, "run", shard_bytes=100_000)
    for version, state in enumerate(states(), 1):
        publisher.publish(version, state)
    context = multiprocessing.get_context("spawn")
    found: Queue[tuple[int, Found]] = context.Queue()
    ranks = [
        context.Process(target=read, args=(rank, directory, store.config, damaged, found))
        for rank in range(RANKS)
    ]
    for rank in ranks:
        rank.start()
    said = dict(found.get(timeout=240) for _ in ranks)
    for rank in ranks:
        rank.join(60)
        assert rank.exitcode == 0
    return [said[rank] for rank in range(RANKS)]


@pytest.mark.parametrize("damaged", [{}, {1: 1}, {0: 1, 1: 1}], ids=["whole", "one", "both"])
def test_two_processes_read_each_byte_once_and_agree_on_damage(
    store: ObjectStore, tmp_path: Path, damaged: dict[int, int]
) -> None:
    said = run(store, tmp_path, damaged)
    expected = {name: tensor.view(torch.int16).tolist() for name, tensor in states()[-1].items()}
    manifests = [Subscriber(store, "run").manifest(version) for version in (1, 2, 3)]
    for one in said:
        assert one["state"] == expected
        assert (one["hops"], one["detours"]) == (2, 1 if damaged else 0)
    anchor, deltas = manifests[0].size, manifests[1].size + manifests[2].size
    assert sum(one["anchor"] for one in said) == anchor
    assert max(one["anchor"] for one in said) < 0.6 * anchor
    assert sum(one["size"] for one in said) == deltas
    assert max(one["size"] for one in said) < 0.7 * deltas
    log = CountingStore(store.config, tmp_path / "reads").read()
    assert len(log) == RANKS
    assert (log.total() == anchor + deltas) is (not damaged)


def test_both_processes_report_a_version_that_stays_damaged(
    store: ObjectStore, tmp_path: Path
) -> None:
    said = run(store, tmp_path, {1: 1000})
    assert "asked the writer for an anchor" in said[0]["error"]
    assert said[0] == said[1] | {"anchor": said[0]["anchor"]}
