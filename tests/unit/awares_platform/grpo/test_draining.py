"""Tests how drained actors hand back their groups, and how other actors continue them."""

import asyncio
from collections.abc import Callable, Collection
from typing import Any

import pytest
from ray.exceptions import RaySystemError

from awares.episode import StopReason
from awares_platform.grpo import controller, notices
from awares_platform.grpo.group import Outcome, Position
from awares_platform.grpo.notices import watch_nodes
from awares_platform.grpo.order import Leave
from awares_platform.method.play import EngineFailure
from tests.unit.awares_platform.grpo.stage import MemoryJournal, Stage, play, until


async def stalled(acted: Stage, prompts: int) -> asyncio.Task[None]:
    """Start the run, and wait until the first actor has begun `prompts` prompts."""
    running = asyncio.create_task(acted.controller.run())
    await acted.controller.attach(0, Position())
    await acted.rest(prompts)
    return running


def test_the_groups_of_a_node_that_is_taken_back_go_on_elsewhere(
    stage: Callable[..., Stage], caplog: pytest.LogCaptureFixture
) -> None:
    async def scene() -> None:
        acted = stage(actor_restarts=0)
        acted.slow_from = [0]
        running = await stalled(acted, 2)
        await acted.controller.leave({"another node"})
        await asyncio.sleep(0.01)
        assert "drain actor0" not in acted.log
        await acted.controller.leave({"node of actor0", "another node"})
        await acted.controller.leave({"node of actor0"})
        assert await acted.step(0, 0) == [0, 1]
        assert acted.log.count("drain actor0") == 1
        assert acted.log.index("kill actor0") < acted.log.index("actor1 plays 0")
        for number in (0, 1):
            [whole, cut] = acted.spawned[1].begun[number]
            assert (whole.stop, cut.stop) == (StopReason.ANSWER, StopReason.UNFINISHED)
        # Actor 1 finishes both groups before the next write, so the journal gets only the finished
        # groups.
        assert [one.outcome for one in acted.journal.groups[:2]] == [Outcome.READY] * 2
        row = await acted.row()
        assert row is not None and row[1]["groups/unfinished"] == 2
        await acted.controller.close()
        await running

    play(scene())
    assert "rollout actor 0 is gone (its node is taken back)" in caplog.text


def test_a_waiting_actor_continues_a_group_as_soon_as_it_is_handed_back(
    stage: Callable[..., Stage],
) -> None:
    """Check that the end of the old actor's task does not cancel the new actor's task."""

    async def scene() -> None:
        acted = stage(rollout_actors=2, groups_in_flight=1, staleness_bound=0)
        acted.slow_from = [None, 0]
        async with acted.running():
            await until(lambda: acted.finished == 1)
            await acted.rest(2)  # Actor 0 waits, because the buffer has no room for a third group.
            [held] = [line.split()[-1] for line in acted.log if line.startswith("actor1 plays")]
            await acted.controller.leave({"node of actor1"})
            assert await acted.step(0, 0) == [0, 1]
        plays = [line for line in acted.log if line.endswith(f"plays {held}")]
        assert plays == [f"actor1 plays {held}", f"actor0 plays {held}"]

    play(scene())


def test_an_actor_that_does_not_hand_back_in_time_loses_its_groups(
    stage: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(controller, "HAND_BACK_S", 0.05)

    async def scene() -> None:
        acted = stage()
        running = asyncio.create_task(acted.controller.run())
        await until(lambda: bool(acted.spawned))
        acted.spawned[0].frozen_at = 0
        await acted.controller.attach(0, Position())
        await acted.rest(1)
        await acted.controller.leave({"node of actor0"})
        assert await acted.step(0, 0) == [0, 1]
        assert acted.spawned[1].begun[0] == ()
        await acted.controller.close()
        await running

    play(scene())
    assert "did not hand back its groups (no answer within 0.05 s)" in caplog.text


def test_a_drained_job_leaves_its_groups_to_the_next_one(stage: Callable[..., Stage]) -> None:
    async def scene() -> None:
        journal = MemoryJournal()
        acted = stage(journal=journal)
        assert await acted.controller.drain(5.0) == (0, False)  # No learner has attached.
        acted = stage(journal=journal)
        acted.slow_from = [1]
        running = await stalled(acted, 3)
        assert await acted.controller.drain(5.0) == (2, True)
        assert [one.prompt.number for one in journal.groups] == [0, 1, 2]
        played = len(acted.played())
        # A drained job issues no prompts, even after a restart of its learner.
        await acted.controller.attach(0, Position())
        await asyncio.sleep(0.05)
        assert len(acted.played()) == played
        await acted.controller.close()
        await running
        held = {one.prompt.number: one for one in journal.groups}
        outcomes = [held[number].outcome for number in range(3)]
        assert outcomes == [Outcome.READY, Outcome.UNFINISHED, Outcome.UNFINISHED]

        after = stage(journal=journal)
        running = asyncio.create_task(after.controller.run())
        await after.controller.attach(0, Position())
        assert await after.step(0, 0) == [0, 1]
        assert await after.step(1, 1) == [0, 1, 2, 3]
        assert 0 not in after.played()  # The group of prompt 0 is finished.
        begun = after.spawned[0].begun
        assert [begun[number] for number in (1, 2, 3)] == [held[1].episodes, held[2].episodes, ()]
        await after.controller.close()
        await running

    play(scene())


def test_nodes_that_are_taken_back_are_told_until_the_run_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    looks: list[Any] = [[], RaySystemError("no GCS"), RaySystemError("no GCS"), ["a"], ["a", "b"]]
    told: list[Collection[str]] = []

    def look() -> Collection[str]:
        found = looks.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    async def leave(nodes: Collection[str]) -> None:
        told.append(nodes)

    async def scene() -> None:
        watching = asyncio.create_task(watch_nodes(leave, look, every_s=0.001))
        await until(lambda: len(told) == 2)
        watching.cancel()

    play(scene())
    assert told == [["a"], ["a", "b"]]
    assert caplog.text.count("Ray does not say which nodes are taken back") == 1


def test_a_question_of_a_drained_actor_is_validated_by_another(
    stage: Callable[..., Stage], samples: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Check a drain in the pause between a failed attempt to validate and the next attempt."""
    monkeypatch.setattr("awares_platform.grpo.validation._RETRY_S", 30.0)

    async def scene() -> None:
        acted = stage(held_out=samples[:1], validation={"every": 1})
        running = asyncio.create_task(acted.controller.run())
        await until(lambda: bool(acted.spawned))
        acted.spawned[0].validation_errors = [EngineFailure("a bad second")]
        await acted.controller.attach(0, Position())
        step = asyncio.create_task(acted.step(0, 0))
        await until(lambda: "actor0 validates 0" in acted.log)
        await asyncio.sleep(0.05)
        await acted.controller.leave({"node of actor0"})
        await until(lambda: "actor1 validates 0" in acted.log)
        await step
        await acted.controller.close()
        await running

    play(scene())


def test_the_nodes_are_those_that_ray_drains(monkeypatch: pytest.MonkeyPatch) -> None:
    held = {"ab": 1_763_800_000_000}
    monkeypatch.setattr(notices.state, "get_draining_nodes", lambda: held)
    assert [*notices.leaving_nodes()] == ["ab"]


def test_a_drained_learner_leaves_whether_it_trains_or_waits(stage: Callable[..., Stage]) -> None:
    async def scene() -> None:
        acted = stage(groups_in_flight=4)
        acted.slow_from = [2]
        running = await stalled(acted, 4)
        assert await acted.step(0, 0) == [0, 1]
        waiting = asyncio.create_task(acted.controller.batch(1, 1, 1, 2))
        await asyncio.sleep(0.02)
        assert not waiting.done()
        assert await acted.controller.drain(5.0) == (4, True)
        assert await waiting == Leave() == await acted.controller.batch(1, 1, 0, 2)
        assert await acted.controller.batch(2, 2, 0, 1) == Leave()
        await acted.controller.close()
        await running

    play(scene())
