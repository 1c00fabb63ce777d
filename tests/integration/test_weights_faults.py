"""Tests publishing and reading weights despite failed requests, damaged objects and dead writers.

After each fault, readers must still hold a good version, and a writer must be able to continue.
"""

import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from awares_platform.store import ObjectStore
from awares_platform.store.errors import StoreUnavailable
from awares_platform.weights import Cadence, Publisher, Received, Subscriber, WeightsError
from awares_platform.weights.head import head_key
from awares_platform.weights.manifest import version_folder
from awares_platform.weights.retention import requested_anchors
from awares_platform.weights.writer import rebuilt
from tests.integration import publishing_process
from tests.integration.fault import Call, Fault, Flip, LostReply, Reset, Status, Throttle, Truncate
from tests.integration.fault_proxy import proxy
from tests.integration.fault_rules import Faults
from tests.integration.publishing_process import weights
from tests.integration.standalone import wait_for

pytestmark = pytest.mark.integration


@pytest.fixture
def run() -> str:
    return f"run-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def faults(seaweed: ObjectStore) -> Iterator[Faults]:
    with proxy(seaweed, retry_budget_s=3.0) as found:
        yield found


def holds(received: Received, version: int) -> bool:
    return received.manifest.version == version and all(
        torch.equal(received.state[name], value) for name, value in weights(version).items()
    )


def published(store: ObjectStore, run: str, newest: int, **options: Any) -> Publisher:
    publisher = Publisher(store, run, **options)
    for version in range(1, newest + 1):
        publisher.publish(version, weights(version))
    return publisher


# -- faults in transit -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "times"),
    [
        (Flip(100), 1),
        (Truncate(50, "honest"), 1),
        (Truncate(50, "full"), 1),
        (Reset(), 2),
        (Status(500), 2),
        (Status(503, "SlowDown"), 2),
    ],
    ids=["flipped byte", "short", "cut", "resets", "500", "slow down"],
)
def test_a_delta_that_is_damaged_in_transit_is_read_again(
    seaweed: ObjectStore, run: str, faults: Faults, fault: Fault, times: int
) -> None:
    published(seaweed, run, 2)
    subscriber = Subscriber(faults.store, run)
    held = subscriber.receive(1)
    faults.on(match="*/v00000002/*.bin", method="GET", fault=fault, times=times)
    received = subscriber.receive(2, held)
    assert holds(received, 2) and received.hops == 1
    seen_by_the_store = isinstance(fault, Reset | Status) or fault == Truncate(50, "full")
    assert received.detours == (0 if seen_by_the_store or fault == Truncate(50, "honest") else 1)


def test_a_store_that_fails_for_long_leaves_readers_with_what_they_have(
    seaweed: ObjectStore, run: str, faults: Faults
) -> None:
    published(seaweed, run, 2)
    subscriber = Subscriber(faults.store, run)
    held = subscriber.receive(1)
    faults.on(match="*.bin", method="GET", fault=Status(500))
    with pytest.raises(StoreUnavailable, match=r"v00000002/e1-d-r00000-00000\.bin"):
        subscriber.receive(2, held)
    assert holds(held, 1) and not requested_anchors(seaweed, run)
    faults.clear()
    assert holds(subscriber.receive(2, held), 2)


def test_a_reader_waits_for_a_very_slow_store(
    seaweed: ObjectStore, run: str, faults: Faults
) -> None:
    """The proxy limits the download to 10 kB/s, and the reader waits for all bytes."""
    published(seaweed, run, 2)
    subscriber = Subscriber(faults.store, run)
    held = subscriber.receive(1)
    [size] = subscriber.manifest(2).shards.values()
    faults.on(match="*/v00000002/*.bin", method="GET", fault=Throttle(10_000))
    started = time.monotonic()
    received = subscriber.receive(2, held)
    assert holds(received, 2) and holds(held, 1)
    assert received.fetch_s > 0.7 * size / 10_000 and time.monotonic() - started >= received.fetch_s


def test_a_lost_reply_to_head_counts_as_published(
    seaweed: ObjectStore, run: str, faults: Faults
) -> None:
    publisher = published(faults.store, run, 1)
    faults.on(match="*/HEAD", method="PUT", fault=LostReply(), times=1)
    publisher.publish(2, weights(2))
    publisher.publish(3, weights(3))
    assert holds(Subscriber(seaweed, run).receive(3), 3)


# -- damage at rest --------------------------------------------------------------------------------


def flip(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 16]) + data[middle + 1 :]


DAMAGE: list[Any] = [flip, lambda data: data[: len(data) // 2], None]


def damage(store: ObjectStore, key: str, how: Callable[[bytes], bytes] | None) -> None:
    if how is None:
        store.delete(key)
    else:
        store.put(key, how(store.get(key)))


@pytest.mark.parametrize("how", DAMAGE, ids=["flipped byte", "truncated", "missing"])
def test_readers_stuck_at_a_damaged_delta_get_an_anchor_with_the_next_version(
    seaweed: ObjectStore, run: str, how: Callable[[bytes], bytes] | None
) -> None:
    publisher = published(seaweed, run, 3)
    subscriber = Subscriber(seaweed, run)
    held = subscriber.receive(1)
    damage(seaweed, f"{version_folder(run, 2)}/e1-d-r00000-00000.bin", how)
    with pytest.raises(WeightsError, match=r"asked the writer for an anchor"):
        subscriber.receive(3, held)
    assert holds(held, 1) and requested_anchors(seaweed, run) == {3}
    publisher.publish(4, weights(4))
    received = subscriber.receive(4, held)
    assert holds(received, 4) and received.hops == 1
    assert not requested_anchors(seaweed, run)
    publisher.publish(5, weights(5))
    assert subscriber.receive(5, received).hops == 1


@pytest.mark.parametrize("how", DAMAGE, ids=["flipped byte", "truncated", "missing"])
@pytest.mark.parametrize("version", [1, 3], ids=["anchor", "delta"])
def test_a_waiting_writer_repairs_the_newest_version(
    seaweed: ObjectStore, run: str, how: Callable[[bytes], bytes] | None, version: int
) -> None:
    """The writer publishes no newer version, so the reader needs a repair of the damaged one."""
    publisher = published(seaweed, run, version)
    subscriber = Subscriber(seaweed, run)
    held = subscriber.receive(version - 1) if version > 1 else None
    damage(
        seaweed,
        f"{version_folder(run, version)}/e1-{'d' if version > 1 else 'a'}-r00000-00000.bin",
        how,
    )
    with pytest.raises(WeightsError, match="asked the writer for an anchor"):
        subscriber.receive(version, held)
    deadline = time.monotonic() + 30
    while requested_anchors(seaweed, run):
        publisher.repair()
        time.sleep(0.05)
        assert time.monotonic() < deadline
    subscriber.head()
    assert holds(subscriber.receive(version, held), version)
    again, known = rebuilt(seaweed, run).find(version), subscriber.seen.find(version)
    assert again is not None and known is not None and {*again.forms} == {*known.forms}
    manifest = publisher.publish(version + 1, weights(version + 1))
    assert manifest.base == version
    assert holds(subscriber.receive(version + 1, held), version + 1)


def test_a_damaged_manifest_is_refused(seaweed: ObjectStore, run: str) -> None:
    publisher = published(seaweed, run, 2)
    subscriber = Subscriber(seaweed, run)
    held = subscriber.receive(1)
    damage(seaweed, f"{version_folder(run, 2)}/manifest.json", flip)
    with pytest.raises(WeightsError, match="does not have the hash that HEAD names"):
        subscriber.receive(2, held)
    assert holds(held, 1)
    publisher.publish(3, weights(3))
    assert holds(subscriber.receive(3, held), 3)


# -- writers ---------------------------------------------------------------------------------------


# Each pair is a key pattern and a number n. The publisher is killed just before its n-th write to
# keys that match the pattern.
KILLED_BEFORE = (
    ("*/HEAD", 1),  # This write makes the publisher the only writer of the run.
    ("*-a-*.bin", 1),
    ("*/manifest.json", 1),
    ("*/HEAD", 2),
    ("*-d-*.bin", 1),
    ("*/manifest.json", 3),
    ("*/HEAD", 3),
    ("*-a-*.bin", 2),  # This object has whole weights of a version that also has a delta.
    ("*/anchor.json", 1),
    ("*/HEAD", 4),
)


def test_a_publisher_killed_before_any_of_its_writes_loses_nothing_and_is_followed_by_another(
    seaweed: ObjectStore, run: str, faults: Faults
) -> None:
    published(seaweed, run, 1)
    command = [
        sys.executable,
        publishing_process.__file__,
        faults.store.config.model_dump_json(),
        run,
    ]
    subscriber, held = Subscriber(seaweed, run), None
    for write, number in KILLED_BEFORE:
        before = subscriber.seen.version
        running: list[subprocess.Popen[bytes]] = []
        countdown = iter(range(number - 1, -1, -1))

        def strike(
            countdown: Iterator[int] = countdown, running: list[subprocess.Popen[bytes]] = running
        ) -> None:
            if next(countdown, 0) == 0:
                wait_for(lambda: bool(running))
                running[0].kill()
                running[0].wait()

        faults.clear()
        faults.on(match=write, method="PUT", fault=Call(strike))
        running.append(subprocess.Popen(command))
        assert running[0].wait(120) == -signal.SIGKILL
        try:
            newest = subscriber.head()
            assert newest is not None and newest >= (before or 1)
            held = subscriber.receive(newest, held)
            assert holds(held, newest)
            assert holds(Subscriber(seaweed, run).receive(newest), newest)
        except WeightsError as error:
            # The writer was killed between the headers and the body of its PUT of the HEAD object.
            # The next writer rebuilds the object.
            assert "not a HEAD object" in str(error)
    final = Publisher(seaweed, run)
    assert final.version is not None and final.version >= (subscriber.seen.version or 1)
    assert holds(Subscriber(seaweed, run).receive(final.version), final.version)


def test_an_emptied_head_is_rebuilt_by_the_next_writer(seaweed: ObjectStore, run: str) -> None:
    first = published(seaweed, run, 3)
    subscriber = Subscriber(seaweed, run)
    held = subscriber.receive(1)
    seaweed.put(head_key(run), b"")
    with pytest.raises(WeightsError, match="not a HEAD object"):
        subscriber.head()
    second = Publisher(seaweed, run)
    assert second.version == 3
    assert holds(subscriber.receive(3, held), 3) and holds(Subscriber(seaweed, run).receive(2), 2)
    second.publish(4, weights(4))
    assert holds(subscriber.receive(4, held), 4)
    with pytest.raises(WeightsError, match="is fenced: a writer of epoch 2"):
        first.publish(5, weights(5))


def test_a_full_store_is_named_and_publishing_goes_on_when_there_is_space(
    seaweed: ObjectStore, run: str, faults: Faults
) -> None:
    publisher = published(faults.store, run, 2)
    subscriber = Subscriber(seaweed, run)
    held = subscriber.receive(2)
    faults.on(match="*.bin", method="PUT", fault=Status(507))
    with pytest.raises(StoreUnavailable, match=r"v00000003/e1-d-r00000-00000\.bin.*full"):
        publisher.publish(3, weights(3))
    assert subscriber.head() == 2 and holds(subscriber.receive(2, held), 2)
    faults.clear()
    manifest = publisher.publish(3, weights(3))
    assert manifest.base == 2
    assert holds(subscriber.receive(3, held), 3)


def test_two_writers_at_once_publish_one_history(seaweed: ObjectStore, run: str) -> None:
    """Two writers publish at once. The store refuses one of them. No version is published twice."""
    fenced, versions = [], []

    def write(first: int) -> None:
        publisher = Publisher(seaweed, run)
        try:
            for _ in range(6):
                version = (publisher.version or 0) + 1
                publisher.publish(
                    version,
                    {"large": torch.full((100,), float(first)), "version": torch.tensor(version)},
                )
                versions.append((version, first))
        except WeightsError as error:
            fenced.append(str(error))

    threads = [threading.Thread(target=write, args=(first,)) for first in (1, 2)]
    for thread in threads:
        thread.start()
        time.sleep(0.05)
    for thread in threads:
        thread.join()
    assert len(fenced) == 1 and "is fenced" in fenced[0]
    assert len({version for version, _ in versions}) == len(versions)
    subscriber = Subscriber(seaweed, run)
    newest = subscriber.head()
    assert newest == max(versions)[0]
    received = subscriber.receive(newest)
    assert received.state["version"] == newest and torch.equal(
        received.state["large"], torch.full((100,), float(max(versions)[1]))
    )


# -- readers ---------------------------------------------------------------------------------------


def test_a_reader_that_fell_behind_what_is_kept_goes_on_from_an_anchor(
    seaweed: ObjectStore, run: str
) -> None:
    publisher = Publisher(seaweed, run, cadence=Cadence(anchor_every=4, keep=1, grace_s=0))
    publisher.publish(1, weights(1))
    subscriber = Subscriber(seaweed, run)
    held = subscriber.receive(1)
    for version in range(2, 12):
        publisher.publish(version, weights(version))
    newest = subscriber.head()
    assert newest == 11
    received = subscriber.receive(newest, held)
    # The reader loads the whole weights of version 9, and the deltas of versions 10 and 11.
    assert holds(received, 11) and received.hops == 3


def test_the_same_delta_offered_twice_is_applied_once(
    seaweed: ObjectStore, run: str, faults: Faults
) -> None:
    published(seaweed, run, 2)
    subscriber = Subscriber(faults.store, run)
    once = subscriber.receive(2, subscriber.receive(1))
    before = len(faults.requests)
    twice = subscriber.receive(2, once)
    assert holds(twice, 2) and twice.hops == 0
    assert not [request for request in faults.requests[before:] if request.key.endswith(".bin")]


def test_clocks_that_jump_change_nothing(
    seaweed: ObjectStore, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Leases, the grace period and the order of versions do not depend on the wall clock."""
    publisher = Publisher(seaweed, run, cadence=Cadence(anchor_every=2, keep=1, grace_s=5))
    publisher.publish(1, weights(1))
    subscriber = Subscriber(seaweed, run)
    held, real, offset = subscriber.receive(1), time.time, [0.0]
    monkeypatch.setattr(time, "time", lambda: real() + offset[0])
    for version, jump in ((2, 86_400.0), (3, -86_400.0), (4, 10 * 365 * 86_400.0), (5, 0.0)):
        offset[0] = jump
        publisher.publish(version, weights(version))
        held = subscriber.receive(version, held)
        assert holds(held, version)
    stored = {
        info.key.partition("weights/v")[2][:8] for info in seaweed.list(f"runs/{run}/weights/v")
    }
    # No jump of the clock has ended the grace period, so no version is deleted.
    assert stored == {f"{version:08d}" for version in range(1, 6)}
