"""Tests which weight versions are kept, and that no version is deleted while a reader reads it."""

import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from awares.errors import AwaresError
from awares_platform.store import ObjectStore
from awares_platform.weights import Cadence, Publisher, Subscriber, WeightsError
from awares_platform.weights.head import Form, Head, PublishedVersion, head_key
from awares_platform.weights.lease import lease
from awares_platform.weights.manifest import folder
from awares_platform.weights.retention import Collector, pin, pinned, unpin

pytestmark = pytest.mark.integration


@pytest.fixture
def run() -> str:
    return f"run-{uuid.uuid4().hex[:8]}"


def head(newest: int, anchors: tuple[int, ...]) -> Head:
    """Return a HEAD that lists the versions from 1 to `newest`.

    The versions in `anchors` have whole weights. The others are deltas to the version before.
    """
    forms = {
        version: Form("manifest.json", None if version in anchors else version - 1, 1, "")
        for version in range(1, newest + 1)
    }
    return Head(
        1, tuple(PublishedVersion(version, (forms[version],)) for version in range(newest, 0, -1))
    )


def versions(published: tuple[PublishedVersion, ...]) -> list[int]:
    return [entry.version for entry in published]


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_new_and_pinned_versions_are_kept_with_their_bases(seaweed: ObjectStore, run: str) -> None:
    collector = Collector(seaweed, run, keep=2, grace_s=60)
    assert versions(collector.kept(head(9, anchors=(1, 4, 7)))) == [9, 8, 7]
    assert versions(collector.kept(head(7, anchors=(1, 4, 7)))) == [7, 6, 5, 4]
    pin(seaweed, run, 2)
    assert pinned(seaweed, run) == {2}
    assert versions(collector.kept(head(9, anchors=(1, 4, 7)))) == [9, 8, 7, 2, 1]
    unpin(seaweed, run, 2)
    assert versions(collector.kept(head(9, anchors=(1, 4, 7)))) == [9, 8, 7]


def test_a_dropped_version_is_deleted_after_the_grace_period(
    seaweed: ObjectStore, run: str
) -> None:
    clock = Clock()
    collector = Collector(seaweed, run, keep=1, grace_s=60, clock=clock)
    for version in (1, 2, 3):
        seaweed.put(f"{folder(run)}/v{version:08d}/manifest.json", b"x")
    assert collector.collect(head(2, anchors=(1, 2))) == []
    only_newest = Head(1, head(3, anchors=(3,)).published[:1])
    assert collector.collect(only_newest) == []
    clock.now += 59
    assert collector.collect(only_newest) == []
    clock.now += 1
    assert collector.collect(only_newest) == [1, 2]
    assert [info.key for info in seaweed.list(f"{folder(run)}/v")] == [
        f"{folder(run)}/v00000003/manifest.json"
    ]


def test_versions_of_a_crashed_writer_are_deleted(seaweed: ObjectStore, run: str) -> None:
    clock = Clock()
    seaweed.put(f"{folder(run)}/v00000002/e1-a-r00000-00000.bin", b"half")
    collector = Collector(seaweed, run, keep=1, grace_s=60, clock=clock)
    newest = Head(2, head(3, anchors=(3,)).published[:1])
    collector.collect(newest)
    clock.now += 60
    assert collector.collect(newest) == [2]


def test_versions_newer_than_head_are_never_deleted(seaweed: ObjectStore, run: str) -> None:
    clock = Clock()
    seaweed.put(f"{folder(run)}/v00000004/e2-a-r00000-00000.bin", b"another writer's next version")
    collector = Collector(seaweed, run, keep=1, grace_s=0, clock=clock)
    collector.collect(head(3, anchors=(3,)))
    clock.now += 1000
    assert collector.collect(head(3, anchors=(3,))) == []


def test_a_lease_keeps_versions_until_it_expires(seaweed: ObjectStore, run: str) -> None:
    clock = Clock()
    collector = Collector(seaweed, run, keep=1, grace_s=0, clock=clock)
    key = f"{folder(run)}/leases/reader"
    for beat in range(3):
        seaweed.put(key, b'{"versions":[1,2],"beat":%d}' % beat)
        assert versions(collector.kept(head(4, anchors=(1, 4)))) == [4, 2, 1]
        # A lease expires when its content stays the same for too long, by the collector's own
        # clock.
        clock.now += 50
    clock.now += 50
    assert versions(collector.kept(head(4, anchors=(1, 4)))) == [4]
    assert not seaweed.exists(key)


def test_a_short_read_takes_no_lease_and_a_long_read_deletes_its_lease(
    seaweed: ObjectStore, run: str
) -> None:
    def leases() -> list[str]:
        return [info.key for info in seaweed.list(f"{folder(run)}/leases/")]

    with lease(seaweed, run, [1]):
        assert leases() == []
    with lease(seaweed, run, [3, 2], beat_s=0.05):
        wait_for(lambda: len(leases()) == 1)
        first = seaweed.get(leases()[0])
        assert b'"versions": [2, 3]' in first
        wait_for(lambda: seaweed.get(leases()[0]) != first)
    wait_for(lambda: not leases())


def wait_for(condition: Callable[[], Any], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def weights(version: int) -> dict[str, Tensor]:
    values = torch.zeros(50_000, dtype=torch.bfloat16)
    values.view(torch.int16)[:: 101 - version] += version
    return {"weight": values}


def test_readers_that_race_the_collector_get_whole_versions(seaweed: ObjectStore, run: str) -> None:
    """The writer keeps only the newest version, and three readers read at different speeds.

    Each reader compares the received tensor with the expected tensor.
    """
    publisher = Publisher(seaweed, run, cadence=Cadence(anchor_every=3, keep=1, grace_s=1.0))
    publisher.publish(1, weights(1))
    done, failures, read = threading.Event(), [], [0, 0, 0]

    def follow(index: int) -> None:
        subscriber, held = Subscriber(seaweed, run), None
        while not done.is_set():
            try:
                version = subscriber.head()
                assert version is not None
                held = subscriber.receive(version, held)
                assert torch.equal(held.state["weight"], weights(version)["weight"])
                read[index] += 1
            except (AwaresError, AssertionError) as error:
                failures.append(error)
            time.sleep(0.05 * index)

    threads = [threading.Thread(target=follow, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    for version in range(2, 40):
        publisher.publish(version, weights(version))
        time.sleep(0.03)
    done.set()
    for thread in threads:
        thread.join()
    assert failures == [] and min(read) > 5
    stored = {info.key.partition("weights/v")[2][:8] for info in seaweed.list(f"{folder(run)}/v")}
    assert len(stored) < 39  # The collector has deleted some versions.


def test_a_reader_of_a_retired_version_is_told_to_take_the_newest(
    seaweed: ObjectStore, run: str
) -> None:
    publisher = Publisher(seaweed, run, cadence=Cadence(anchor_every=1, keep=1, grace_s=0))
    publisher.publish(1, weights(1))
    late = Subscriber(seaweed, run)
    assert late.head() == 1
    publisher.publish(2, weights(2))
    with pytest.raises(
        WeightsError, match=r"version 1 has just been retired; take the newest \(2\)"
    ):
        late.receive(1)
    assert torch.equal(late.receive(2).state["weight"], weights(2)["weight"])
    assert Head.from_bytes(seaweed.get(head_key(run))).version == 2
