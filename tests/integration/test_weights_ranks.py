"""Tests that several ranks publish one version together, and each rank uploads its own parts."""

import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor

from awares_platform.store import ObjectStore
from awares_platform.store.errors import StoreUnavailable
from awares_platform.weights import Cadence, Publisher, Subscriber, WeightsError
from awares_platform.weights.parts import Part, even_parts

pytestmark = pytest.mark.integration

RANKS = 3


@pytest.fixture
def run() -> str:
    return f"run-{uuid.uuid4().hex[:8]}"


class Agreement:
    """A broadcast between threads. Each thread plays one rank, and receives rank 0's value."""

    def __init__(self, ranks: int) -> None:
        self._barrier, self._value = threading.Barrier(ranks), None

    def of(self, rank: int) -> Callable[[Any], Any]:
        def agree(value: Any) -> Any:
            if rank == 0:
                self._value = value
            self._barrier.wait(30)
            found = self._value
            self._barrier.wait(30)
            return found

        return agree


def together(*tasks: Callable[[], Any]) -> list[Any]:
    with ThreadPoolExecutor(len(tasks)) as pool:
        return [future.result() for future in [pool.submit(task) for task in tasks]]


def publishers(stores: list[ObjectStore], run: str, **options: Any) -> list[Publisher]:
    agreement = Agreement(len(stores))
    return together(
        *(
            lambda rank=rank, store=store: Publisher(
                store, run, rank=rank, ranks=len(stores), agree=agreement.of(rank), **options
            )
            for rank, store in enumerate(stores)
        )
    )


def state(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "a": torch.randn(70, 33, generator=generator),
        "b": torch.randn(5, generator=generator),
        "steps": torch.tensor(seed),
    }


def shares(values: dict[str, Tensor]) -> list[list[Part]]:
    return [
        list(even_parts([*values.items()], rank, RANKS, torch.float32)) for rank in range(RANKS)
    ]


def equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(
        torch.equal(left[name], right[name]) for name in left
    )


class Recording(ObjectStore):
    """A store client that records the key and the number of bytes of each object it writes."""

    def put(
        self, key: str, data: bytes, *, if_none_match: bool = False, if_match: str | None = None
    ) -> str:
        self.__dict__.setdefault("written", []).append((key.partition("weights/")[2], len(data)))
        return super().put(key, data, if_none_match=if_none_match, if_match=if_match)


def test_ranks_write_their_own_parts_and_rank_0_the_manifest(
    seaweed: ObjectStore, run: str
) -> None:
    stores: list[ObjectStore] = [Recording(seaweed.config) for _ in range(RANKS)]
    ranks = publishers(stores, run, cadence=Cadence(anchor_every=3))
    for version in range(1, 5):
        values = state(version)
        begun = together(
            *(
                lambda rank=rank, parts=parts: rank.begin(parts)
                for rank, parts in zip(ranks, shares(values), strict=True)
            )
        )
        assert begun == [version] * RANKS == [rank.version for rank in ranks]
        together(*(rank.wait for rank in ranks))
        assert equal(Subscriber(seaweed, run).fetch(version), values)
    assert ranks[0].last is not None and ranks[1].last is None
    keys = [{key for key, _ in store.__dict__["written"]} for store in stores]
    assert {key for key in keys[1] if key.startswith("v00000001/")} == {
        "v00000001/e1-a-r00001-00000.bin",
        "v00000001/e1-r00001.json",
    }
    assert (
        "v00000001/manifest.json" in keys[0]
        and "HEAD" in keys[0]
        and not any("r00001" in key for key in keys[0])
    )
    held = [
        sum(
            size
            for key, size in store.__dict__["written"]
            if key.startswith("v00000001/") and key.endswith(".bin")
        )
        for store in stores
    ]
    assert max(held) < 1.2 * min(held)  # Each rank uploads about a third of the bytes.
    entry = Subscriber(seaweed, run).manifest(1).tensors[0]
    assert [(piece.start, piece.end) for piece in entry.pieces] == [
        (0, 772),
        (772, 1544),
        (1544, 2310),
    ]


def test_rank_0_names_the_missing_rank_and_publishes_nothing(
    seaweed: ObjectStore, run: str
) -> None:
    class Dead(ObjectStore):
        def put(
            self, key: str, data: bytes, *, if_none_match: bool = False, if_match: str | None = None
        ) -> str:
            raise StoreUnavailable(key)

    ranks = publishers([seaweed, Dead(seaweed.config), seaweed], run, timeout_s=1.0)
    together(
        *(
            lambda rank=rank, parts=parts: rank.begin(parts)
            for rank, parts in zip(ranks, shares(state(1)), strict=True)
        )
    )
    with pytest.raises(
        WeightsError, match=r"version 1 is not complete: ranks \[1\] of 3 did not upload"
    ):
        ranks[0].wait()
    with pytest.raises(StoreUnavailable):
        ranks[1].wait()
    assert Subscriber(seaweed, run).head() is None


def test_uploads_of_an_older_writer_of_the_same_version_are_ignored(
    seaweed: ObjectStore, run: str
) -> None:
    class Dying(ObjectStore):
        def put(
            self, key: str, data: bytes, *, if_none_match: bool = False, if_match: str | None = None
        ) -> str:
            if key.endswith("manifest.json"):
                raise StoreUnavailable(key)
            return super().put(key, data, if_none_match=if_none_match, if_match=if_match)

    first = publishers([Dying(seaweed.config), seaweed, seaweed], run)
    together(
        *(
            lambda rank=rank, parts=parts: rank.begin(parts)
            for rank, parts in zip(first, shares(state(1)), strict=True)
        )
    )
    with pytest.raises(StoreUnavailable):
        first[0].wait()
    second = publishers([seaweed] * RANKS, run)
    together(
        *(
            lambda rank=rank, parts=parts: rank.begin(parts)
            for rank, parts in zip(second, shares(state(2)), strict=True)
        )
    )
    together(*(rank.wait for rank in second))
    assert equal(Subscriber(seaweed, run).fetch(1), state(2))
