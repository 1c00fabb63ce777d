"""Tests the record of a run's validated versions in a real store."""

import uuid

import pytest

from awares_platform.grpo.record_book import StoredBook, ValidationRecord
from awares_platform.grpo.validated import DueVersion, Validated
from awares_platform.store import ObjectStore
from awares_platform.training.snapshot import snapshot_key
from awares_platform.weights.retention import pinned

pytestmark = pytest.mark.integration

ENTRY = Validated(20, 21, 9.7, 0.94, 0.4, 0.5, values={"q/1": 9.5, "q/2": 9.9}, train_reward=9.6)


def test_the_record_of_a_run_returns_and_keeps_its_versions(seaweed: ObjectStore) -> None:
    run = f"run-{uuid.uuid4().hex[:8]}"
    book = StoredBook(seaweed, run)
    assert book.read() == ValidationRecord()
    written = ValidationRecord([ENTRY], best=21, pending=[DueVersion(40, 41)], restores=1)
    book.write(written)
    assert StoredBook(seaweed, run).read() == written
    assert written.found(21) == ENTRY and written.found(41) is None
    book.keep(21)
    book.keep(41)
    assert pinned(seaweed, run) == {21, 41}
    book.drop(41)
    assert pinned(seaweed, run) == {21}


def test_a_snapshot_is_complete_once_all_ranks_have_written_it(seaweed: ObjectStore) -> None:
    run = f"run-{uuid.uuid4().hex[:8]}"
    book, key = StoredBook(seaweed, run), snapshot_key(run, "grpo", 21)
    assert not book.complete(21)
    seaweed.put(f"{key}/done/00001", b"2")
    assert not book.complete(21)
    seaweed.put(f"{key}/done/00000", b"2")
    assert book.complete(21)
    book.drop(21)
    assert not book.complete(21) and [*seaweed.list(f"{key}/")] == []
