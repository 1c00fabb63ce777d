"""Tests that one reader of HEAD, the list of a run's versions, tells all actors of new weights."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

from awares_platform.engine.follow import Loaded, follow
from awares_platform.engine.load import LoadReport, Prefetched
from awares_platform.grpo.announcing import announce_versions
from awares_platform.grpo.group import Position
from awares_platform.store.errors import StoreUnavailable
from awares_platform.weights.head import Head, PublishedVersion
from tests.unit.awares_platform.grpo.stage import Stage, play, until


class FakeSubscriber:
    """A subscriber whose store holds the versions that a test publishes."""

    def __init__(self) -> None:
        self.stored = self.seen = Head(0)
        self.reads, self.broken = 0, False

    def publish(self, version: int) -> None:
        self.stored = Head(1, (PublishedVersion(version, ()),))

    def head(self) -> int | None:
        self.reads += 1
        if self.broken:
            raise StoreUnavailable("no answer")
        self.seen = self.stored
        return self.seen.version


class FakeEngine:
    version = 0

    async def load_version(self, subscriber: Any, version: int, canary: Any) -> LoadReport:
        self.version = version
        return LoadReport(version, Prefetched(1, 0, 0, 0.0, 0.0, 0.0), 0.0, 0.0, None)


def test_each_change_of_head_is_announced_once() -> None:
    async def scene() -> None:
        weights, announced = FakeSubscriber(), list[int | None]()

        async def announce(version: int | None) -> None:
            announced.append(version)

        watching = asyncio.create_task(announce_versions(cast(Any, weights), announce, 0.001))
        await until(lambda: weights.reads > 3)
        assert announced == []  # There is no version yet.
        for version in (1, 2):
            weights.publish(version)
            await until(lambda version=version: announced[-1:] == [version])
        weights.broken, reads = True, weights.reads
        await until(lambda: weights.reads > reads + 1)
        weights.broken = False
        weights.publish(3)
        await until(lambda: announced == [1, 2, 3])
        watching.cancel()

    play(scene())


def test_an_announcement_ends_the_wait_of_an_actor() -> None:
    async def scene() -> None:
        weights, announced, loads = FakeSubscriber(), asyncio.Event(), list[Loaded]()

        async def read() -> None:
            following = follow(cast(Any, FakeEngine()), cast(Any, weights), None, 60.0, announced)
            async for load in following:
                loads.append(cast(Loaded, load))

        reading = asyncio.create_task(read())
        await until(lambda: weights.reads == 1)
        for version in (1, 2):
            weights.publish(version)
            announced.set()
            await until(lambda version=version: len(loads) == version)
        assert [load.version for load in loads] == [1, 2] and weights.reads == 3
        reading.cancel()

    play(scene())


def test_an_actor_loads_nothing_while_another_task_needs_its_version() -> None:
    async def scene() -> None:
        weights, loading, loads = FakeSubscriber(), asyncio.Lock(), list[int]()
        weights.publish(1)

        async def read() -> None:
            async for load in follow(
                cast(Any, FakeEngine()), cast(Any, weights), None, 0.001, loading=loading
            ):
                loads.append(cast(Loaded, load).version)

        async with loading:
            reading = asyncio.create_task(read())
            await asyncio.sleep(0.05)
            assert loads == []
        await until(lambda: loads == [1])
        reading.cancel()

    play(scene())


def test_the_controller_tells_every_running_actor(stage: Callable[..., Stage]) -> None:
    async def scene() -> None:
        acted = stage(rollout_actors=70)
        running = asyncio.create_task(acted.controller.run())
        await acted.controller.attach(0, Position())
        await acted.rest(4)
        await acted.controller.announce(1)
        told = [line.split()[1] for line in acted.log if line.startswith("announce")]
        assert sorted(told) == sorted(actor.name for actor in acted.spawned)
        await acted.controller.close()
        await running
        told_before = len(acted.log)
        await acted.controller.announce(1)  # No actor runs any more.
        assert len(acted.log) == told_before

    play(scene())
