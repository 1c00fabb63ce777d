"""Tests how the controller replaces actors that hang, and waits for actors without a node."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, ObjectLostError, RayTaskError

from awares.errors import DataError
from awares_platform.engine.engine import EngineError
from awares_platform.grpo import reward_actor
from awares_platform.grpo.actor import ActorLost, ActorReclaimed
from awares_platform.grpo.group import Position
from awares_platform.grpo.rewarding import WorkerLost, WorkerReclaimed
from awares_platform.grpo.rollout import _answer
from awares_platform.store.errors import LaunchError, StoreUnavailable
from tests.unit.awares_platform.grpo.stage import Stage, play, until


def test_the_prompts_of_a_hung_actor_are_played_by_its_successor(
    stage: Callable[..., Stage], caplog: pytest.LogCaptureFixture
) -> None:
    async def scene() -> None:
        acted = stage(hang_timeout_s=0.2, drop_uniform_groups=False)
        running = asyncio.create_task(acted.controller.run())
        await until(lambda: bool(acted.spawned))
        acted.spawned[0].frozen_at = 1
        await acted.controller.attach(0, Position())
        assert await acted.step(0, 0) == [0, 1]
        assert await acted.step(1, 1) == [0, 1, 2, 3]
        await acted.controller.close()
        await running
        assert [line for line in acted.log if line.split()[-1] == "1"] == [
            "actor0 plays 1",
            "actor1 plays 1",
        ]
        assert acted.log.index("kill actor0") < acted.log.index("start actor1")

    play(scene())
    assert "rollout actor 0 is gone (the actor hangs: it gave no answer for 0.25 s" in caplog.text


def test_an_actor_without_a_node_is_awaited_and_stops_no_run(stage: Callable[..., Stage]) -> None:
    async def scene() -> None:
        acted = stage(batch_timeout_s=1.0, hang_timeout_s=2.0, actor_restarts=0)
        acted.placed.clear()
        running = asyncio.create_task(acted.controller.run())
        await acted.controller.attach(0, Position())
        step = asyncio.create_task(acted.step(0, 0))
        await asyncio.sleep(3.0)
        assert not step.done() and not running.done()
        assert acted.controller.unplaced == 1
        acted.placed.set()
        assert await step == [0, 1]
        assert acted.controller.unplaced == 0
        await acted.controller.close()
        await running

    play(scene())


def test_a_lost_actor_stops_the_clock_of_the_batch(stage: Callable[..., Stage]) -> None:
    """Check that `grpo.batch_timeout_s` does not count the time without an actor.

    The only actor dies, and its successor waits for a node.
    """

    async def scene() -> None:
        acted = stage(batch_timeout_s=1.0)
        acted.dies_at = [0]
        acted.placed.set()
        running = asyncio.create_task(acted.controller.run())
        await until(lambda: bool(acted.spawned))
        acted.placed.clear()
        await acted.controller.attach(0, Position())
        step = asyncio.create_task(acted.step(0, 0))
        await asyncio.sleep(2.5)
        assert not step.done()
        acted.placed.set()
        assert await step == [0, 1]
        await acted.controller.close()
        await running

    play(scene())


def test_missing_reward_workers_stop_the_clock_of_the_batch(stage: Callable[..., Stage]) -> None:
    """Check that `grpo.batch_timeout_s` counts only the time with a ready reward worker."""

    async def scene() -> None:
        acted = stage(batch_timeout_s=0.05)
        acted.bus.head = -1  # The actors wait, because there is no version to load.
        acted.can_score = False
        running = asyncio.create_task(acted.controller.run())
        await acted.controller.attach(0, Position())
        step = asyncio.create_task(acted.step(0, 0))
        await asyncio.sleep(0.5)
        assert not step.done()
        acted.can_score = True
        assert await step is None
        with pytest.raises(LaunchError, match="grpo.batch_timeout_s"):
            await running

    play(scene())


@pytest.mark.parametrize(("kind", "stops"), [(ActorReclaimed, False), (ActorLost, True)])
def test_only_an_actor_that_the_cloud_takes_back_does_not_count(
    stage: Callable[..., Stage], kind: type[ActorLost], stops: bool
) -> None:
    async def scene() -> None:
        acted = stage(actor_restarts=0)
        drives = [kind("the node"), None]

        async def drive(*_: Any) -> None:
            if error := drives.pop(0):
                raise error
            await asyncio.Event().wait()

        tending = asyncio.create_task(acted.controller._fleet.tend(0, drive))
        if stops:
            with pytest.raises(LaunchError, match="died 1 times within an hour"):
                await tending
        else:
            await until(lambda: not drives)
            assert not tending.done() and acted.controller._fleet.losses == 0
            tending.cancel()

    play(scene())


def test_a_node_taken_back_is_told_from_a_dead_process() -> None:
    async def scene() -> None:
        dead, reclaimed = ActorDiedError(), ActorDiedError()
        reclaimed._preempted = True
        with pytest.raises(ActorReclaimed):
            await _answer(failed(reclaimed))
        with pytest.raises(ActorLost) as raised:
            await _answer(failed(dead))
        assert type(raised.value) is ActorLost
        with pytest.raises(WorkerReclaimed):
            await reward_actor._answer(failed(reclaimed))
        with pytest.raises(WorkerLost) as lost:
            await reward_actor._answer(failed(dead))
        assert type(lost.value) is WorkerLost

    play(scene())


@pytest.mark.parametrize(
    "met",
    [
        StoreUnavailable("the store gave no answer; check store.endpoint"),
        EngineError("the engine failed"),
        OSError("No space left on device"),
        ObjectLostError("ab" * 28, "owner", "there"),
    ],
)
def test_what_one_actor_meets_costs_only_this_actor(met: Exception) -> None:
    async def scene() -> None:
        with pytest.raises(ActorLost):
            await _answer(failed(RayTaskError("rollout", "a traceback", met)))
        if not isinstance(met, (StoreUnavailable, EngineError)):
            with pytest.raises(ActorLost):
                await _answer(failed(RayTaskError("rollout", "", met).as_instanceof_cause()))

    play(scene())


def test_a_lost_object_costs_only_its_actor_and_a_mistake_costs_the_run() -> None:
    async def scene() -> None:
        with pytest.raises(ActorLost):
            await _answer(failed(ObjectLostError("ab" * 28, "owner", "there")))
        with pytest.raises(DataError, match="no rows"):
            await _answer(failed(RayTaskError("rollout", "", DataError("no rows"))))
        with pytest.raises(LaunchError, match="none"):
            await _answer(failed(RayTaskError("rollout", "", LaunchError("none"))))

    play(scene())


def failed(error: Exception) -> Any:
    future = asyncio.get_running_loop().create_future()
    future.set_exception(error)
    return future
