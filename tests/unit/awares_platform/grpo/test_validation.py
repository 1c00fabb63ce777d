"""Tests which versions a run validates, also after the loss of an actor, a learner or the job."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from awares.sample import Sample
from awares_platform.engine.canary import CanaryMismatch
from awares_platform.grpo.group import Position
from awares_platform.grpo.order import Chosen, Finish, Restoration, Restore
from awares_platform.grpo.shard import StepShard
from awares_platform.method.play import EngineFailure
from awares_platform.weights import WeightsError
from tests.unit.awares_platform.grpo.stage import MemoryBook, Stage, play, until

QUESTIONS = [Sample(f"held{number}", "cd" * 32, "question?", "7") for number in range(2)]


def validating(stage: Callable[..., Stage], **settings: Any) -> Stage:
    """Return a Stage of five steps that validates every second version."""
    checked = {"every": 2, **settings.pop("validation", {})}
    return stage(steps=5, held_out=QUESTIONS, validation=checked, **settings)


def validated(acted: Stage) -> list[int]:
    return [int(line.split()[-1]) for line in acted.log if "validates" in line]


async def rows(acted: Stage, count: int) -> list[tuple[int, dict[str, float]]]:
    """Return the next `count` rows of metrics that contain the results of a validation."""
    found: list[tuple[int, dict[str, float]]] = []
    async with asyncio.timeout(10):
        while len(found) < count:
            item = await acted.row()
            assert item is not None
            if "validation/version" in item[1]:
                found.append(item)
    return found


async def begin(acted: Stage, first: int = 1) -> asyncio.Task[None]:
    """Start the controller, and attach a learner that has published the version `first`."""
    running = asyncio.create_task(acted.controller.run())
    await acted.controller.attach(first, Position())
    acted.bus.publish(first)
    await acted.controller.announce(first)
    return running


async def end(acted: Stage, running: asyncio.Task[None]) -> None:
    await acted.controller.close()
    await running


def test_the_start_every_second_and_the_last_version_are_validated(
    stage: Callable[..., Stage],
) -> None:
    async def scene() -> None:
        acted = validating(stage)
        acted.rewards = {"7": 2.0, "worse": 1.0}
        running = await begin(acted)
        for actor in acted.spawned:
            actor.answers = {6: "worse"}
        for step in range(5):
            await acted.step(step, step + 1)
        assert await acted.controller.last(5, 6)
        found = await rows(acted, 4)
        assert validated(acted) == [1, 3, 5, 6]
        # Each row begins with the index of the step that produced the validated version. The index
        # is -1 for the starting version.
        assert [step + 1 for step, _ in found] == [0, 2, 4, 5]
        assert [row["validation/reward"] for _, row in found] == [2.0, 2.0, 2.0, 1.0]
        assert [row["validation/accuracy"] for _, row in found] == [1.0, 1.0, 1.0, 0.0]
        # Version 1, the starting version, cannot be the best. Version 5 ties with version 3, and is
        # newer.
        assert [row["validation/best"] for _, row in found] == [0, 1, 1, 0]
        chosen = await acted.controller.chosen()
        assert chosen is not None and (chosen.version, chosen.step) == (5, 4)
        assert acted.book.kept == {5}
        assert acted.book.record.pending == []
        await end(acted, running)

    play(scene())


def test_a_snapshot_is_written_of_each_candidate(stage: Callable[..., Stage]) -> None:
    async def scene() -> None:
        acted = validating(stage)
        running = await begin(acted)
        kept = []
        for step in range(5):
            shard = await acted.controller.batch(step, step + 1, 0, 1)
            assert isinstance(shard, StepShard)
            kept.append(shard.keep)
            acted.bus.publish(step + 2)
            await acted.controller.announce(step + 2)
            await acted.controller.learned(step, {})
        assert kept == [False, False, True, False, True]
        await end(acted, running)

    play(scene())


def test_a_version_waits_until_it_is_published_and_saved(stage: Callable[..., Stage]) -> None:
    async def scene() -> None:
        acted = validating(stage)
        running = await begin(acted)
        await acted.step(0, 1)
        acted.book.unsaved = {3}
        assert isinstance(await acted.controller.batch(1, 2, 0, 1), StepShard)
        await acted.controller.learned(1, {})
        # The learner has begun to publish version 3, and asks for its next batch.
        assert isinstance(await acted.controller.batch(2, 3, 0, 1), StepShard)
        await asyncio.sleep(0.05)
        assert 3 in acted.book.kept and 3 not in validated(acted)
        acted.bus.publish(3)
        await acted.controller.announce(3)
        await until(lambda: 3 in validated(acted))
        await asyncio.sleep(0.05)
        assert [one.version for one in acted.book.record.entries] == [1]
        acted.book.unsaved = set()
        await until(lambda: [one.version for one in acted.book.record.entries] == [1, 3])
        await end(acted, running)

    play(scene())


def test_an_actor_that_dies_costs_only_that_validation(stage: Callable[..., Stage]) -> None:
    async def scene() -> None:
        acted = validating(stage)
        running = await begin(acted)
        await acted.step(0, 1)
        acted.spawned[0].dies_validating = 3
        for step in range(1, 3):
            await acted.step(step, step + 1)
        found = await rows(acted, 2)
        assert [row["validation/version"] for _, row in found] == [1, 3]
        assert [line for line in acted.log if line.endswith("validates 3")] == [
            "actor0 validates 3",
            "actor1 validates 3",
        ]
        await end(acted, running)

    play(scene())


def test_a_version_that_cannot_be_loaded_is_tried_three_times(
    stage: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("awares_platform.grpo.validation._RETRY_S", 0.0)

    async def scene() -> None:
        acted = validating(stage)
        running = await begin(acted)
        damaged = WeightsError("damaged")
        acted.spawned[0].validation_errors = [EngineFailure("2 of 2"), damaged, damaged]
        await acted.step(0, 1)
        # Wait until the three attempts to validate version 1 have raised the fake actor's three
        # errors.
        await until(lambda: validated(acted) == [1, 1, 1])
        for step in (1, 2):
            await acted.step(step, step + 1)
        # No attempt with version 1 succeeded, so the record does not contain it.
        await until(lambda: [one.version for one in acted.book.record.entries] == [3])
        assert validated(acted) == [1, 1, 1, 3]
        assert acted.book.record.pending == [] and acted.book.kept == {3}
        await end(acted, running)

    play(scene())


def test_a_version_is_not_forgotten_if_its_actor_dies_before_the_next_attempt(
    stage: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("awares_platform.grpo.validation._RETRY_S", 30.0)

    async def scene() -> None:
        acted = validating(stage)
        running = await begin(acted)
        acted.spawned[0].validation_errors = [EngineFailure("2 of 2")]
        await acted.step(0, 1)
        await until(lambda: not acted.spawned[0].validation_errors)
        await asyncio.sleep(0.01)
        acted.spawned[0].dead.set()
        acted.bus.publish(acted.bus.head)  # The actor wakes and finds that it is dead.
        await until(lambda: "actor1 validates 1" in acted.log)
        await until(lambda: [one.version for one in acted.book.record.entries] == [1])
        await end(acted, running)

    play(scene())


def test_a_canary_mismatch_in_a_validation_stops_the_run(stage: Callable[..., Stage]) -> None:
    async def scene() -> None:
        acted = validating(stage)
        running = await begin(acted)
        await until(lambda: bool(acted.spawned))
        acted.spawned[0].validation_errors = [CanaryMismatch("of version 1")]
        await acted.controller.batch(0, 1, 0, 1)
        with pytest.raises(CanaryMismatch, match="of version 1"):
            await running

    play(scene())


def test_a_killed_validation_is_repeated_and_the_best_version_stays(
    stage: Callable[..., Stage],
) -> None:
    async def scene() -> None:
        book = MemoryBook()
        acted = validating(stage, book=book)
        running = await begin(acted)
        for step in range(4):
            await acted.step(step, step + 1)
        await until(lambda: [one.version for one in book.record.entries] == [1, 3])
        book.unsaved = {5}  # The job is killed while the learner writes this snapshot.
        await acted.controller.batch(4, 5, 0, 1)
        await until(lambda: 5 in validated(acted))
        await end(acted, running)
        assert book.kept == {3, 5}

        book.unsaved = set()
        # The killed job has recorded version 3 in the book, but not reported it in the metrics.
        resumed = validating(stage, book=book, reported={1})
        running = asyncio.create_task(resumed.controller.run())
        await resumed.controller.attach(6, Position(8), ((1, 5),))
        again = [row["validation/version"] for _, row in await rows(resumed, 2)]
        assert again == [3, 5]
        assert validated(resumed) == [5]
        assert [one.version for one in book.record.entries] == [1, 3, 5]
        resumed.bus.publish(6)
        # The resumed learner has the weights of version 5, which are validated already.
        assert isinstance(shard := await resumed.controller.batch(4, 6, 0, 1), StepShard)
        assert not shard.keep
        await end(resumed, running)

        # This job reports all versions, because the metrics have none of them.
        third = validating(stage, book=book)
        running = asyncio.create_task(third.controller.run())
        await third.controller.attach(6, Position(8), ((1, 5),))
        found = await rows(third, 3)
        assert [row["validation/version"] for _, row in found] == [1, 3, 5]
        await end(third, running)

    play(scene())


def test_a_version_of_a_lost_learner_is_validated_only_if_it_is_whole(
    stage: Callable[..., Stage],
) -> None:
    async def scene() -> None:
        acted = validating(stage)
        running = await begin(acted)
        await acted.step(0, 1)
        await acted.step(1, 2)
        acted.book.unsaved = {3}
        await acted.step(2, 3)
        await until(lambda: 3 in validated(acted))
        # The learner dies before its snapshot of version 3 is complete. A new learner starts from
        # step 0.
        await acted.controller.attach(5, Position())
        assert acted.book.record.pending == [] and 3 not in acted.book.kept
        acted.bus.publish(5)
        for step in range(3):
            await acted.step(step, step + 5)
        # Version 7 is also the result of two steps, but has other weights than the abandoned
        # version 3.
        await until(lambda: [one.version for one in acted.book.record.entries] == [5, 7])
        await end(acted, running)

    play(scene())


def test_patience_ends_the_run_after_versions_that_are_not_better(
    stage: Callable[..., Stage],
) -> None:
    async def scene() -> None:
        acted = validating(stage, validation={"every": 1, "patience": 2})
        acted.rewards = {"worse": 0.5}
        running = await begin(acted)
        acted.spawned[0].answers = {3: "worse", 4: "worse"}
        for step in range(4):
            assert await acted.step(step, step + 1) is not None
            await until(lambda step=step: len(acted.book.record.entries) == step + 1)
        assert await acted.controller.batch(4, 5, 0, 2) == Finish()
        assert await acted.controller.batch(4, 5, 1, 2) == Finish()
        await acted.controller.last(4, 5)
        chosen = await acted.controller.chosen()
        # Version 5 is validated, because it is the last one. It ties with version 2, and is newer.
        assert isinstance(chosen, Chosen) and chosen.version == 5
        await end(acted, running)

    play(scene())


def test_a_guard_lets_all_ranks_restore_the_best_version_a_few_times(
    stage: Callable[..., Stage],
) -> None:
    async def scene() -> None:
        acted = validating(stage)
        running = await begin(acted)
        await acted.step(0, 1)
        assert await acted.controller.restore(2) == Restoration(None, 0)
        for step in range(1, 3):
            await acted.step(step, step + 1)
        await until(lambda: acted.book.record.best == 3)
        assert await acted.controller.restore(1) == Restoration(3, 1)
        for rank in range(2):
            assert await acted.controller.batch(3, 4, rank, 2) == Restore(3)
        # The learner publishes the restored weights as version 5, which descends from version 3.
        await acted.controller.attach(5, Position(6), ((1, 3),))
        acted.bus.publish(5)
        await acted.controller.announce(5)
        assert await acted.step(3, 5) is not None
        assert await acted.controller.restore(1) == Restoration(None, 1)
        assert acted.book.record.restores == 1
        seen = [await acted.row() for _ in range(6)]
        metrics = [item[1] for item in seen if item is not None]
        restored = [row["guards/restores"] for row in metrics if "guards/restores" in row]
        assert restored == [0, 0, 0, 1]
        await end(acted, running)

    play(scene())


def test_without_held_out_questions_the_last_version_is_chosen(stage: Callable[..., Stage]) -> None:
    async def scene() -> None:
        acted = stage(steps=1)
        running = await begin(acted)
        await acted.step(0, 1)
        assert not await acted.controller.last(1, 2)
        assert await acted.controller.chosen() == Chosen(None, None, {})
        await end(acted, running)
        assert await acted.controller.chosen() is None
        assert validated(acted) == [] and acted.book.kept == set()

    play(scene())


def test_a_drained_run_does_not_wait_for_its_last_validation(
    stage: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("awares_platform.grpo.validation._RETRY_S", 30.0)

    async def scene() -> None:
        acted = validating(stage, validation={"every": 1})
        running = await begin(acted)
        await acted.step(0, 1)
        await until(lambda: len(acted.book.record.entries) == 1)
        acted.spawned[0].validation_errors = [EngineFailure("a bad second")]
        await acted.step(1, 2)
        await acted.controller.last(2, 3)
        chosen = asyncio.create_task(acted.controller.chosen())
        await asyncio.sleep(0.05)
        assert not chosen.done()
        await acted.controller.drain(5.0)
        assert await asyncio.wait_for(chosen, 5.0) is None
        await end(acted, running)

    play(scene())
