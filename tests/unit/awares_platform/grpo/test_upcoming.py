"""Tests the controller's forecast of the views that the next step needs."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

from awares.episode import Episode
from awares.view import ImageView, View
from awares_platform.grpo.group import Position
from awares_platform.grpo.shard import shown
from tests.unit.awares_platform.grpo.stage import Stage, play, until


def numbered(make_episode: Callable[..., Episode]) -> Callable[..., Episode]:
    """Return a factory of episodes.

    The first two episodes that it makes show image 0, the next two show image 1, and so on.
    """
    made: list[int] = []

    def make(version: int) -> Episode:
        made.append(version)
        return replace(make_episode(version), image=str((len(made) - 1) // 2))

    return make


def low(*images: int) -> tuple[ImageView, ...]:
    return tuple(ImageView(str(image), (112, 112), View(None)) for image in images)


def test_the_forecast_is_what_the_next_batch_then_holds(
    stage: Callable[..., Stage], make_episode: Callable[..., Episode]
) -> None:
    async def scene() -> None:
        acted = stage()
        acted.episode = numbered(make_episode)
        running = asyncio.create_task(acted.controller.run())
        await acted.controller.attach(0, Position())
        assert await acted.step(0, 0) == [0, 1]
        # While the learner trains on step 0, the groups of the prompts 2 and 3 become ready.
        forecasts = [await acted.controller.upcoming(1, 1, rank, 2) for rank in range(2)]
        assert forecasts == [low(2), low(3)]
        shards = [await acted.controller.batch(1, 1, rank, 2) for rank in range(2)]
        assert [shown(shard) for shard in shards if shard] == forecasts
        await acted.controller.close()
        await running

    play(scene())


def test_a_forecast_waits_for_a_whole_batch(
    stage: Callable[..., Stage], make_episode: Callable[..., Episode]
) -> None:
    async def scene() -> None:
        acted = stage()
        acted.episode = numbered(make_episode)
        await acted.controller.attach(0, Position())
        asked = asyncio.create_task(acted.controller.upcoming(0, 0, 0, 1))
        await asyncio.sleep(0.02)
        assert not asked.done()
        running = asyncio.create_task(acted.controller.run())
        assert await asked == low(0, 1)
        # The forecast has left the groups in the buffer.
        assert await acted.step(0, 0) == [0, 1]
        await acted.controller.close()
        await running

    play(scene())


def test_a_synchronous_run_has_no_forecast(stage: Callable[..., Stage]) -> None:
    """Check that `upcoming` returns no views if the next batch cannot be ready ahead of its step.

    With the staleness bound 0, a batch becomes ready only after the learner has published the
    version that its step updates.
    """

    async def scene() -> None:
        acted = stage(staleness_bound=0)
        running = asyncio.create_task(acted.controller.run())
        await acted.controller.attach(0, Position())
        assert await acted.controller.batch(0, 0, 0, 1) is not None
        batch = asyncio.create_task(acted.controller.batch(1, 1, 0, 1))
        await asyncio.sleep(0.01)
        asked = asyncio.create_task(acted.controller.upcoming(1, 1, 0, 1))
        await asyncio.sleep(0.01)
        assert not batch.done() and not asked.done()
        acted.bus.publish(1)
        assert await batch is not None
        assert await asked == ()
        for end in (acted.controller.attach(2, Position(4)), acted.controller.close()):
            asked = asyncio.create_task(acted.controller.upcoming(9, 9, 0, 1))
            await asyncio.sleep(0.01)
            assert not asked.done()
            await end
            assert await asked == ()
        await running

    play(scene())


def test_a_forecast_leaves_out_what_is_too_stale(
    stage: Callable[..., Stage], make_episode: Callable[..., Episode]
) -> None:
    async def scene() -> None:
        acted = stage()
        acted.episode = numbered(make_episode)
        running = asyncio.create_task(acted.controller.run())
        await acted.controller.attach(0, Position())
        await until(lambda: acted.finished == 4)
        # Version 0 sampled all four ready groups. With the bound 1, they are too stale for a step
        # that updates version 2.
        asked = asyncio.create_task(acted.controller.upcoming(5, 2, 0, 1))
        await asyncio.sleep(0.01)
        assert not asked.done()
        assert await acted.controller.upcoming(0, 1, 0, 1) == low(0, 1)
        assert await acted.step(0, 0) == [0, 1], "a forecast must not drop a group"
        await acted.controller.close()
        assert await asked == ()
        await running

    play(scene())


def test_a_new_learner_gets_a_forecast_of_its_own(
    stage: Callable[..., Stage], make_episode: Callable[..., Episode]
) -> None:
    """Check a learner at another position, and then a learner with more ranks."""

    async def scene() -> None:
        acted = stage()
        acted.episode = numbered(make_episode)
        async with acted.running():
            assert await acted.controller.upcoming(0, 0, 0, 1) == low(0, 1)
            await acted.controller.attach(0, Position(2))
            assert await acted.controller.upcoming(0, 0, 0, 1) == low(2, 3)
            # A late call of the lost learner may come after `attach`.
            forecasts = [await acted.controller.upcoming(0, 0, rank, 2) for rank in range(2)]
            assert forecasts == [low(2), low(3)]

    play(scene())
