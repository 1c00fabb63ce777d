"""Tests how weight versions are published to a real SeaweedFS, and read from SeaweedFS."""

import threading
import uuid
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from awares_platform.store import ObjectStore
from awares_platform.store.errors import StoreUnavailable
from awares_platform.weights import (
    Cadence,
    Identity,
    Manifest,
    Publisher,
    Received,
    Subscriber,
    WeightsError,
    WriterFenced,
)
from awares_platform.weights.manifest import digest
from awares_platform.weights.parts import whole_parts

pytestmark = pytest.mark.integration


@pytest.fixture
def run() -> str:
    return f"run-{uuid.uuid4().hex[:8]}"


def state(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "head.weight": torch.randn(24, 16, generator=generator).to(torch.bfloat16),
        "norm.weight": torch.tensor([float("nan"), float("inf"), -0.0, 1e-40], dtype=torch.float32),
        "steps": torch.tensor(7 + seed),
        "mask": torch.tensor([True, False, True]),
        "nothing": torch.empty(0, 3),
        "turned": torch.randn(6, 5, generator=generator).to(torch.float16).t(),
    }


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    """Return whether two states are equal bit for bit. NaN equals NaN, and -0.0 differs from 0."""
    return [*left] == [*right] and all(
        value.dtype == right[name].dtype
        and value.shape == right[name].shape
        and digest(value.contiguous().reshape(-1).view(torch.uint8).numpy().data)
        == digest(right[name].contiguous().reshape(-1).view(torch.uint8).numpy().data)
        for name, value in left.items()
    )


def test_a_version_comes_back_bit_for_bit(seaweed: ObjectStore, run: str) -> None:
    publisher, subscriber = Publisher(seaweed, run, shard_bytes=64), Subscriber(seaweed, run)
    assert subscriber.head() is None
    manifest = publisher.publish(1, state(), {"step": 40})
    assert len(manifest.shards) > 2
    assert subscriber.head() == 1
    assert same(subscriber.fetch(1), state())
    received = subscriber.receive(1)
    assert received.manifest == manifest
    assert received.manifest.extra == {"step": 40}
    assert received.fetch_s > 0 and received.decode_s > 0 and received.verify_s > 0
    assert (received.hops, received.size) == (1, manifest.size)


def changed(before: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
    """Return a copy of `before` that differs in about 1 % of the elements of `large`.

    The bit pattern of each changed element is increased by 1.
    """
    generator = torch.Generator().manual_seed(seed)
    after = {name: tensor.clone() for name, tensor in before.items()}
    bits = after["large"].view(torch.int16)
    bits += (torch.rand(bits.shape, generator=generator) < 0.01).to(torch.int16)
    return after


@pytest.fixture
def chain(seaweed: ObjectStore, run: str) -> list[dict[str, Tensor]]:
    """Publish version 1 as whole weights, and versions 2 to 5 as deltas. Return the five states."""
    publisher, states = (
        Publisher(seaweed, run),
        [{**state(), "large": torch.randn(300, 1000).to(torch.bfloat16)}],
    )
    publisher.publish(1, states[0])
    for version in range(2, 6):
        states.append(changed(states[-1], version))
        manifest = publisher.publish(version, states[-1], step=10 * version)
        assert (manifest.base, manifest.step) == (version - 1, 10 * version)
        assert manifest.changed_ratio == pytest.approx(0.01 * 300_000 / 300_413, rel=0.1)
        assert manifest.size < 0.01 * 600_000
    return states


def test_a_reader_follows_by_deltas_and_a_joiner_starts_at_the_anchor(
    seaweed: ObjectStore, run: str, chain: list[dict[str, Tensor]]
) -> None:
    subscriber = Subscriber(seaweed, run)
    held = subscriber.receive(1)
    followed = subscriber.receive(2, held)
    assert (followed.hops, followed.size) == (1, followed.manifest.size)
    late = subscriber.receive(5, followed)
    assert late.hops == 3 and late.size < 20_000
    joined = Subscriber(seaweed, run).receive(5)
    assert joined.hops == 5 and joined.size > 400_000
    for received, expected in (
        (held, chain[0]),
        (followed, chain[1]),
        (late, chain[4]),
        (joined, chain[4]),
    ):
        assert same(dict(received.state), expected)
    # The reader does not copy an unchanged tensor.
    assert late.state["head.weight"] is held.state["head.weight"]
    again = subscriber.receive(5, late)
    assert again.hops == again.size == 0 and same(dict(again.state), chain[4])


def test_the_held_version_is_not_modified(
    seaweed: ObjectStore, run: str, chain: list[dict[str, Tensor]]
) -> None:
    subscriber = Subscriber(seaweed, run)
    held = subscriber.receive(1)
    subscriber.receive(3, held)
    assert same(dict(held.state), chain[0])


def test_a_delta_on_another_base_is_not_handed_out(
    seaweed: ObjectStore, run: str, chain: list[dict[str, Tensor]]
) -> None:
    subscriber = Subscriber(seaweed, run)
    held = subscriber.receive(1)
    drifted = {**held.state, "large": held.state["large"] + 1}
    received = subscriber.receive(2, Received(held.manifest, drifted, 0, 0, 0, 0, 0))
    # The held state does not match the base of the delta, so the reader starts again at version 1.
    assert same(dict(received.state), chain[1]) and received.hops == 2


def test_an_anchor_is_published_after_so_many_versions(seaweed: ObjectStore, run: str) -> None:
    publisher, weights = (
        Publisher(seaweed, run, cadence=Cadence(anchor_every=3)),
        {"large": torch.randn(300, 1000).to(torch.bfloat16)},
    )
    for version in range(1, 6):
        publisher.publish(version, weights)
        weights = changed(weights, version)
    subscriber = Subscriber(seaweed, run)
    held = subscriber.receive(3)
    # Version 4 is published as a delta and as whole weights. A reader that holds version 3 takes
    # the delta.
    assert subscriber.receive(4, held).hops == 1
    joined = subscriber.receive(5)
    assert joined.hops == 2


def test_a_resumed_publisher_begins_with_an_anchor(
    seaweed: ObjectStore, run: str, chain: list[dict[str, Tensor]]
) -> None:
    resumed = Publisher(seaweed, run)
    assert resumed.publish(6, chain[0]).base is None
    assert resumed.publish(7, chain[1]).base == 6
    assert same(Subscriber(seaweed, run).fetch(7), chain[1])


def test_an_unchanged_version_uploads_only_a_manifest(seaweed: ObjectStore, run: str) -> None:
    publisher = Publisher(seaweed, run)
    publisher.publish(1, state())
    manifest = publisher.publish(2, state())
    assert manifest.size == 0 and manifest.changed_ratio == 0 and not manifest.shards
    assert same(Subscriber(seaweed, run).fetch(2), state())


def test_a_publication_runs_beside_its_caller(seaweed: ObjectStore, run: str) -> None:
    gate = threading.Event()

    class Slow(ObjectStore):
        def put(
            self, key: str, data: bytes, *, if_none_match: bool = False, if_match: str | None = None
        ) -> str:
            if key.endswith(".bin"):
                assert gate.wait(30)
            return super().put(key, data, if_none_match=if_none_match, if_match=if_match)

    publisher = Publisher(Slow(seaweed.config), run)
    assert publisher.begin(whole_parts(state())) == 1
    assert Subscriber(seaweed, run).head() is None
    gate.set()
    publisher.wait()
    assert Subscriber(seaweed, run).head() == 1
    assert publisher.last is not None and publisher.last.seconds > 0
    assert publisher.last.metrics()["weights/bytes"] == publisher.last.manifest.size


def test_a_failed_publication_is_raised_by_the_next_call_and_repeated_whole(
    seaweed: ObjectStore, run: str
) -> None:
    class Failing(ObjectStore):
        failing = False

        def put(
            self, key: str, data: bytes, *, if_none_match: bool = False, if_match: str | None = None
        ) -> str:
            if Failing.failing and key.endswith("manifest.json"):
                raise StoreUnavailable(key)
            return super().put(key, data, if_none_match=if_none_match, if_match=if_match)

    publisher = Publisher(Failing(seaweed.config), run)
    publisher.publish(1, state())
    Failing.failing = True
    assert publisher.begin(whole_parts(state(1))) == 2
    with pytest.raises(StoreUnavailable):
        publisher.begin(whole_parts(state(2)))
    Failing.failing = False
    assert publisher.version == 1
    assert publisher.publish(2, state(2)).base == 1
    assert same(Subscriber(seaweed, run).fetch(2), state(2))


def test_the_manifest_names_the_policy_of_the_weights(seaweed: ObjectStore, run: str) -> None:
    publisher = Publisher(seaweed, run, identity=Identity("5d1c", "77b0", 2.0))
    publisher.publish(1, state())
    manifest = Subscriber(seaweed, run).manifest(1)
    assert (manifest.processor, manifest.template, manifest.adapter, manifest.epoch) == (
        "5d1c",
        "77b0",
        2.0,
        1,
    )


def test_head_is_one_small_request(seaweed: ObjectStore, run: str) -> None:
    for version in range(1, 7):
        publisher = Publisher(seaweed, run)
        publisher.publish(version, {"weight": torch.ones(4)})
    requests: list[int] = []

    class Counting(ObjectStore):
        def get_with_etag(self, key: str) -> tuple[bytes, str]:
            data, etag = super().get_with_etag(key)
            requests.append(len(data))
            return data, etag

    assert Subscriber(Counting(seaweed.config), run).head() == 6
    assert len(requests) == 1 and requests[0] < 1024


def test_a_version_must_be_newer_than_head(seaweed: ObjectStore, run: str) -> None:
    Publisher(seaweed, run).publish(5, state())
    resumed = Publisher(seaweed, run)
    assert resumed.version == 5
    with pytest.raises(WeightsError, match="version 5 is not newer than HEAD's 5; go on with 6"):
        resumed.publish(5, state())
    resumed.publish(6, state(1))
    assert Subscriber(seaweed, run).head() == 6


class Interrupted(Exception):
    """Raised by a write to simulate the kill of a publisher's process."""


def dying(store: ObjectStore, writes: int) -> ObjectStore:
    """Return a client of `store` that makes `writes` writes, and then raises Interrupted."""

    class Dying(ObjectStore):
        def put(
            self, key: str, data: bytes, *, if_none_match: bool = False, if_match: str | None = None
        ) -> str:
            nonlocal writes
            if writes == 0:
                raise Interrupted(key)
            writes -= 1
            return super().put(key, data, if_none_match=if_none_match, if_match=if_match)

    return Dying(store.config)


def test_a_half_published_version_is_invisible(seaweed: ObjectStore, run: str) -> None:
    Publisher(seaweed, run).publish(1, state())
    subscriber = Subscriber(seaweed, run)
    died = []
    # The first write makes the publisher the only writer of the run. It succeeds in each attempt.
    for writes in range(1, 20):
        try:
            Publisher(dying(seaweed, writes), run, shard_bytes=64).publish(2, state(1))
            break
        except Interrupted as error:
            died.append(str(error))
            assert subscriber.head() == 1
            assert same(subscriber.fetch(1), state())
            with pytest.raises(WeightsError, match="version 2 is not published"):
                subscriber.fetch(2)
    # Publishers died at the writes of the manifest, of HEAD, and of at least three other objects.
    assert len({key.rpartition("/")[2] for key in died} - {"manifest.json", "HEAD"}) > 2
    assert {"manifest.json", "HEAD"} < {key.rpartition("/")[2] for key in died}
    assert same(subscriber.fetch(2), state(1))


def test_a_second_writer_fences_the_first(seaweed: ObjectStore, run: str) -> None:
    first = Publisher(seaweed, run)
    first.publish(1, state())
    second = Publisher(seaweed, run)
    with pytest.raises(
        WriterFenced,
        match=r"this writer \(epoch 1\) is fenced: a writer of epoch 2 has claimed.*run\.name",
    ):
        first.publish(2, state(1))
    second.publish(2, state(2))
    with pytest.raises(WriterFenced):
        first.publish(3, state(1))
    assert Subscriber(seaweed, run).head() == 2
    assert same(Subscriber(seaweed, run).fetch(2), state(2))


def test_a_writer_fenced_in_mid_publication_leaves_its_successor_alone(
    seaweed: ObjectStore, run: str
) -> None:
    Publisher(seaweed, run).publish(1, state())

    class Overtaken(ObjectStore):
        """A store client. Before it uploads a shard, another writer publishes version 2."""

        def put(
            self, key: str, data: bytes, *, if_none_match: bool = False, if_match: str | None = None
        ) -> str:
            if key.endswith(".bin"):
                Publisher(seaweed, run).publish(2, state(2))
            return super().put(key, data, if_none_match=if_none_match, if_match=if_match)

    with pytest.raises(WriterFenced):
        Publisher(Overtaken(seaweed.config), run).publish(2, state(1))
    assert same(Subscriber(seaweed, run).fetch(2), state(2))


def test_only_the_newest_versions_are_kept(seaweed: ObjectStore, run: str) -> None:
    publisher, subscriber = (
        Publisher(seaweed, run, cadence=Cadence(anchor_every=1, keep=2, grace_s=0)),
        Subscriber(seaweed, run),
    )
    for version in (1, 2, 3):
        publisher.publish(version, state(version))
    assert same(subscriber.fetch(2), state(2))
    with pytest.raises(
        WeightsError, match="version 1 is not published or no longer kept; HEAD is at 3"
    ):
        subscriber.fetch(1)
    assert not [*seaweed.list(f"runs/{run}/weights/v00000001/")]


def flip(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (flip, r"tensor head\.weight"),
        (lambda data: data[:-1], r"e1-a-r00000-00000\.bin is truncated"),
        (None, r"e1-a-r00000-00000\.bin is missing"),
    ],
    ids=["flipped byte", "truncated", "missing"],
)
def test_a_damaged_shard_is_never_handed_out(
    seaweed: ObjectStore, run: str, damage: Callable[[bytes], bytes] | None, said: str
) -> None:
    Publisher(seaweed, run).publish(1, {"head.weight": torch.randn(64, 64)})
    key = f"runs/{run}/weights/v00000001/e1-a-r00000-00000.bin"
    if damage is None:
        seaweed.delete(key)
    else:
        seaweed.put(key, damage(seaweed.get(key)))
    with pytest.raises(WeightsError, match=said):
        Subscriber(seaweed, run).fetch(1)


def test_a_manifest_that_head_does_not_name_is_refused(seaweed: ObjectStore, run: str) -> None:
    manifest = Publisher(seaweed, run).publish(1, state(), {"step": 1})
    forged: Manifest = replace(manifest, extra={"step": 2})
    seaweed.put(f"runs/{run}/weights/v00000001/manifest.json", forged.to_bytes())
    with pytest.raises(WeightsError, match="does not have the hash that HEAD names"):
        Subscriber(seaweed, run).manifest(1)
