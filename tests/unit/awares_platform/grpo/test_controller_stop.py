"""Tests the failures that make the controller stop the run."""

import asyncio
from collections.abc import Callable

import pytest

from awares_platform.grpo.group import Outcome, Position
from awares_platform.store.errors import LaunchError
from tests.unit.awares_platform.grpo.stage import Stage, play


def test_too_many_deaths_stop_the_run(stage: Callable[..., Stage]) -> None:
    async def scene() -> None:
        acted = stage(actor_restarts=1)
        acted.dies_at = [0, 0]
        running = asyncio.create_task(acted.controller.run())
        await acted.controller.attach(0, Position())
        assert await acted.step(0, 0) is None
        with pytest.raises(LaunchError, match="grpo.actor_restarts"):
            await running
        assert await acted.controller.record() is None

    play(scene())


def test_a_canary_mismatch_stops_the_learner_and_is_raised(stage: Callable[..., Stage]) -> None:
    async def scene() -> None:
        acted = stage()
        acted.mismatch_at = 2
        running = asyncio.create_task(acted.controller.run())
        await acted.controller.attach(0, Position())
        assert await acted.step(0, 0) == [0, 1]
        await acted.step(1, 1)  # This step publishes version 2.
        assert await acted.step(2, 2) is None
        with pytest.raises(ValueError, match="canary of version 2"):
            await running

    play(scene())


def test_groups_that_all_fail_stop_the_run_with_their_cause(stage: Callable[..., Stage]) -> None:
    async def scene() -> None:
        acted = stage()
        acted.outcome = Outcome.FAILED
        running = asyncio.create_task(acted.controller.run())
        await acted.controller.attach(0, Position())
        assert await acted.step(0, 0) is None
        with pytest.raises(LaunchError, match="4 groups in a row"):
            await running

    play(scene())


def test_no_batch_in_time_stops_the_run(stage: Callable[..., Stage]) -> None:
    async def scene() -> None:
        acted = stage(batch_timeout_s=0.05)
        acted.bus.head = -1  # The actors wait, because there is no version to load.
        running = asyncio.create_task(acted.controller.run())
        await acted.controller.attach(0, Position())
        assert await acted.step(0, 0) is None
        with pytest.raises(LaunchError, match="0 of 2 groups ready"):
            await running

    play(scene())
