"""Tests which waiting actors get prompts, and that waiting causes almost no work."""

import asyncio
from collections.abc import AsyncIterator, Callable
from itertools import pairwise

import pytest

from awares.sample import Sample
from awares_platform.engine.follow import Loaded
from awares_platform.engine.load import LoadReport, Prefetched
from awares_platform.grpo.actor import ActorLost
from awares_platform.grpo.buffer import EpisodeBuffer
from awares_platform.grpo.group import Group, Position, Prompt
from awares_platform.grpo.line import Line
from awares_platform.grpo.lineage import Lineage
from awares_platform.grpo.prompts import Prompts
from tests.unit.awares_platform.grpo.fake_actor import FakeActor
from tests.unit.awares_platform.grpo.stage import Stage, play, until

Waiting = asyncio.Task[Prompt]


@pytest.fixture
def buffer(samples: list[Sample]) -> EpisodeBuffer:
    """Return a buffer with two groups a batch and the staleness bound 1."""
    buffer = EpisodeBuffer(Prompts(samples, 0), 2, 1)
    buffer.restore(Position(), [], Lineage())
    return buffer


async def waiting(line: Line, versions: list[int]) -> list[Waiting]:
    """Start one waiting actor for each item of `versions`, and return the actors' tasks."""
    for index, version in enumerate(versions):
        line.loaded(index, version)
    tasks = [asyncio.create_task(line.prompt(index)) for index in range(len(versions))]
    await asyncio.sleep(0)
    return tasks


async def served(tasks: list[Waiting]) -> list[int | None]:
    """Return the number of each task's prompt, or None for an actor that waits."""
    await asyncio.sleep(0.01)
    return [task.result().number if task.done() else None for task in tasks]


def stop(tasks: list[Waiting]) -> None:
    for task in tasks:
        task.cancel()


def test_actors_get_prompts_in_the_order_of_their_arrival(buffer: EpisodeBuffer) -> None:
    async def scene() -> None:
        line = Line(buffer)
        tasks = await waiting(line, [0] * 6)
        assert await served(tasks) == [None] * 6  # The line is not open yet.
        line.open()
        assert await served(tasks) == [0, 1, 2, 3, None, None]
        stop(tasks)

    play(scene())


def test_the_newest_weights_come_first_and_have_more_room(
    buffer: EpisodeBuffer, make_group: Callable[..., Group]
) -> None:
    async def scene() -> None:
        line = Line(buffer)
        tasks = await waiting(line, [0, 0, 0, 0, 1, 1, 1])
        line.open()
        # An actor with version 1 gets a prompt while fewer than six groups are in flight or ready.
        # An actor with version 0 gets a prompt only while there are fewer than four.
        assert await served(tasks) == [3, None, None, None, 0, 1, 2]
        line.loaded(2, 1)
        assert await served(tasks) == [3, None, 4, None, 0, 1, 2]
        buffer.add(make_group(Prompt(3, 0, tasks[0].result().sample), version=0))
        line.advance()
        # The group of prompt 3 is ready, but still takes room in the buffer.
        assert await served(tasks) == [3, None, 4, None, 0, 1, 2]
        stop(tasks)

    play(scene())


def test_an_actor_that_is_lost_gives_back_its_prompt(buffer: EpisodeBuffer) -> None:
    async def scene() -> None:
        line = Line(buffer)
        tasks = await waiting(line, [0] * 6)
        line.open()
        # Cancel two actors: the first, whose task has not yet received its prompt, and the last,
        # which still waits for a prompt.
        stop([tasks[0], tasks[5]])
        await asyncio.sleep(0.01)
        assert tasks[0].cancelled() and tasks[5].cancelled()
        assert await served(tasks[1:5]) == [1, 2, 3, 0]
        assert buffer.in_flight == 4

    play(scene())


def test_many_prompts_at_once_let_other_tasks_run_in_between(samples: list[Sample]) -> None:
    async def scene() -> None:
        buffer = EpisodeBuffer(Prompts(samples, 0), 400, 1)
        buffer.restore(Position(), [], Lineage())
        line = Line(buffer)
        tasks = await waiting(line, [0] * 1_000)
        line.open()
        issued = [buffer.in_flight]
        while issued[-1] < 800:
            for _ in range(3):  # Further calls must not issue prompts before the other tasks run.
                line.advance()
            await asyncio.sleep(0)
            issued.append(buffer.in_flight)
        assert max(later - now for now, later in pairwise([0, *issued])) <= 32
        assert await served(tasks) == [*range(800), *[None] * 200]
        stop(tasks)

    play(scene())


class Counting(EpisodeBuffer):
    """A buffer that counts the calls of `room`."""

    asked = 0

    def room(self, loaded: int) -> int:
        self.asked += 1
        return super().room(loaded)


def test_actors_without_room_cost_nothing(stage: Callable[..., Stage]) -> None:
    async def scene() -> None:
        acted = stage(rollout_actors=300)
        buffer = acted.controller._buffer
        buffer.__class__ = Counting
        assert isinstance(buffer, Counting)
        running = asyncio.create_task(acted.controller.run())
        await acted.controller.attach(0, Position())
        assert len(await acted.rest(4)) == 4
        await until(lambda: all(actor.version == 0 for actor in acted.spawned))
        buffer.asked = 0
        await acted.controller._notify()
        await asyncio.sleep(0.05)
        # If each waiting actor called `room` itself, there would be 300 calls.
        assert buffer.asked <= 2
        await acted.controller.close()
        await running

    play(scene())


class Doomed(FakeActor):
    """An actor that is lost as soon as it has loaded its first version."""

    async def follow(self) -> AsyncIterator[Loaded]:
        self.version = self.bus.head
        yield Loaded(LoadReport(0, Prefetched(1, 0, 0, 0.0, 0.0, 0.0), 0.0, 0.0, None), 0.1)
        raise ActorLost(self.name)


def test_a_prompt_that_an_actor_never_began_is_played_by_another(
    stage: Callable[..., Stage],
) -> None:
    """Check an actor that is lost after it gets a prompt, and before it begins to play."""

    async def scene() -> None:
        acted = stage(groups_per_step=1, staleness_bound=0)
        spawn, spawned = acted.spawn, []

        def doomed_first(index: int) -> FakeActor:
            actor = spawn(index)
            if not spawned:
                actor.__class__ = Doomed
            spawned.append(actor)
            return actor

        acted.controller._fleet._spawn = doomed_first
        await acted.controller.attach(0, Position())
        running = asyncio.create_task(acted.controller.run())
        assert await acted.step(0, 0) == [0]
        assert len(spawned) == 2
        await acted.controller.close()
        await running

    play(scene())
