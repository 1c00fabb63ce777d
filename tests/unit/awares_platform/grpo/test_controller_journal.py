"""Tests that the journal keeps finished groups, and that a new learner gets these groups."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from awares.sample import Sample
from awares_platform.grpo.group import Group, Position
from awares_platform.grpo.journal import Journal
from awares_platform.grpo.prompts import Prompts
from awares_platform.store.errors import StoreUnavailable
from tests.unit.awares_platform.grpo.stage import SlowJournal, Stage, play, until
from tests.unit.awares_platform.store.answering_server import (
    LISTING,
    Answer,
    Asked,
    answering,
    client_of,
    error,
)

ETAG = (("etag", '"00"'),)
"""The header that an S3 server sends after a successful write."""


def test_a_learner_that_resumes_gets_what_the_dead_one_held(stage: Callable[..., Stage]) -> None:
    async def scene() -> None:
        acted = stage(staleness_bound=3)
        running = asyncio.create_task(acted.controller.run())
        await acted.controller.attach(0, Position())
        first = await acted.controller.batch(0, 0, 0, 1)
        assert first is not None and first.position == Position(2)
        acted.bus.publish(1)
        # The learner dies before its first checkpoint, and a new learner attaches.
        await acted.controller.attach(1, Position())
        again = await acted.controller.batch(0, 1, 0, 1)
        assert again is not None and again.position == Position(2)
        assert again.minibatches == first.minibatches
        await acted.controller.close()
        await running
        # No prompt was played twice.
        assert sorted(acted.played()) == sorted(set(acted.played()))

    play(scene())


def test_a_group_that_finishes_while_the_journal_is_read_is_kept(
    stage: Callable[..., Stage],
) -> None:
    async def scene() -> None:
        journal = SlowJournal()
        journal.may_return.set()
        acted = stage(staleness_bound=3, journal=journal)
        running = asyncio.create_task(acted.controller.run())
        await acted.controller.attach(0, Position())
        journal.may_return.clear()
        journal.reading.clear()
        attaching = asyncio.create_task(acted.controller.attach(0, Position()))
        await asyncio.to_thread(journal.reading.wait, 10)
        # A staleness bound of 3 allows four batches of two groups. All eight groups finish while
        # the controller reads the journal.
        await until(lambda: acted.finished == 8)
        journal.may_return.set()
        await attaching
        assert await acted.step(0, 0) == [0, 1]
        assert await acted.step(1, 1) == [0, 1, 2, 3]
        await acted.controller.close()
        await running
        assert sorted(acted.played()) == sorted(set(acted.played()))
        written = sorted(group.prompt.number for group in journal.groups)
        assert written == list(range(len(written))) and len(written) >= 8

    play(scene())


def test_no_group_starts_before_the_journal_of_the_last_job_is_read(
    stage: Callable[..., Stage], make_group: Callable[..., Group], samples: list[Sample]
) -> None:
    async def scene() -> None:
        prompts = Prompts(samples, 0)
        journal = SlowJournal([make_group(prompts[number]) for number in range(3)])
        acted = stage(journal=journal)
        running = asyncio.create_task(acted.controller.run())
        await until(lambda: "start actor0" in acted.log)
        attaching = asyncio.create_task(acted.controller.attach(0, Position()))
        await asyncio.to_thread(journal.reading.wait, 10)
        await asyncio.sleep(0.05)
        assert acted.played() == []
        journal.may_return.set()
        await attaching
        assert await acted.step(0, 0) == [0, 1]
        await until(lambda: len(acted.played()) == 3)
        # The journal holds the groups of prompts 0 to 2. Prompt 3 completes the next batch, and the
        # staleness bound also allows the batch of prompts 4 and 5.
        assert acted.played() == [3, 4, 5]
        await acted.controller.close()
        await running

    play(scene())


def test_finished_groups_are_in_the_journal_before_their_batch_is_handed_out(
    stage: Callable[..., Stage],
) -> None:
    async def scene() -> None:
        acted = stage()
        running = asyncio.create_task(acted.controller.run())
        await acted.controller.attach(0, Position())
        await acted.controller.batch(0, 0, 0, 1)
        assert {0, 1} <= {group.prompt.number for group in acted.journal.groups}
        await acted.controller.close()
        await running

    play(scene())


def test_a_failed_write_fails_one_batch_and_no_later_learner(stage: Callable[..., Stage]) -> None:
    async def scene() -> None:
        acted = stage()
        running = asyncio.create_task(acted.controller.run())
        await acted.controller.attach(0, Position())
        acted.journal.failures = 1
        for rank in range(2):
            with pytest.raises(StoreUnavailable):
                await acted.controller.batch(0, 0, rank, 2)
        await acted.controller.attach(0, Position())
        assert await acted.step(0, 0) == [0, 1]
        await acted.controller.close()
        await running
        written = [group.prompt.number for group in acted.journal.groups]
        assert sorted(written) == sorted(set(written)) and {0, 1} <= set(written)

    play(scene())


def test_a_failed_last_write_hides_no_error_and_ends_the_run(stage: Callable[..., Stage]) -> None:
    async def scene() -> None:
        acted = stage()
        acted.mismatch_at = 1
        running = asyncio.create_task(acted.controller.run())
        await acted.controller.attach(0, Position())
        assert await acted.step(0, 0) == [0, 1]
        acted.journal.failures = 100
        with pytest.raises(ValueError, match="canary of version 1"):
            await running
        while await acted.row() is not None:
            pass

    play(scene())


def test_after_a_restart_tokens_of_the_abandoned_branch_are_stale(
    stage: Callable[..., Stage],
) -> None:
    """Check a restart from a checkpoint of version 1, after versions 2 and 3 were published."""

    async def scene() -> None:
        acted = stage(staleness_bound=2)
        acted.bus.head = 1
        running = asyncio.create_task(acted.controller.run())
        await acted.controller.attach(1, Position())
        for step in (0, 1):
            await acted.step(step, step + 1)
        await until(lambda: len(acted.controller._buffer) >= 4)
        acted.bus.publish(4)
        await acted.controller.attach(4, Position(), ((1, 1),))
        shard = await acted.controller.batch(0, 4, 0, 1)
        batch = acted.controller._batch
        assert shard is not None and batch is not None
        trained = {version for group in batch[0].groups for version in group.versions}
        assert trained.isdisjoint({2, 3})
        await acted.controller.close()
        await running

    play(scene())


def test_a_full_store_is_named_and_the_run_goes_on_once_it_has_space(
    stage: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real journal writes to a store that refuses every write until the test frees space."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret")
    full = True

    def answer(asked: Asked) -> Answer:
        if asked.method != "PUT":
            return Answer(body=LISTING)
        return Answer(507, error("XMinioStorageFull")) if full else Answer(headers=ETAG)

    async def scene(journal: Any, server: str) -> None:
        nonlocal full
        acted = stage(journal=journal)
        running = asyncio.create_task(acted.controller.run())
        for _ in range(2):  # The first learner fails, and its successor meets the same fault.
            with pytest.raises(
                StoreUnavailable, match=rf"s3://awares/x/runs/r/.*{server} is full .*free space"
            ):
                await acted.controller.attach(0, Position())
                await acted.step(0, 0)
        full = False
        await acted.controller.attach(0, Position())
        assert await acted.step(0, 0) == [0, 1]
        await acted.controller.close()
        await running
        assert sorted(acted.played()) == sorted(set(acted.played()))

    with answering(answer) as server:
        journal = Journal(client_of(server), "r", "9c0e")
        play(scene(journal, f"http://127.0.0.1:{server.server_port}"))
