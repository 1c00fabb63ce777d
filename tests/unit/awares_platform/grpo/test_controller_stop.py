"""Tests which failures make the controller stop the run, and which ones it survives."""

import asyncio
from collections.abc import Callable

import pytest

from awares.errors import DataError
from awares.sample import Sample
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
        assert await acted.row() is None

    play(scene())


def test_a_canary_mismatch_stops_the_learner_and_is_raised(stage: Callable[..., Stage]) -> None:
    async def scene() -> None:
        acted = stage()
        acted.mismatch_at = 2
        running = asyncio.create_task(acted.controller.run())
        await acted.controller.attach(0, Position())
        assert await acted.step(0, 0) == [0, 1]
        await acted.step(1, 1)  # This step publishes version 2.
        step = 2
        while await acted.step(step, step) is not None:
            step += 1
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


def test_a_group_with_a_nan_reward_is_dropped_and_counted(
    stage: Callable[..., Stage], caplog: pytest.LogCaptureFixture
) -> None:
    async def scene() -> None:
        acted = stage()
        acted.nan_rewards = {1}
        running = asyncio.create_task(acted.controller.run())
        await acted.controller.attach(0, Position())
        assert await acted.step(0, 0) == [0, 1, 2]
        row = await acted.row()
        assert row is not None and row[1]["groups/nonfinite"] == 1
        await acted.controller.close()
        await running

    play(scene())
    [message] = [message for message in caplog.messages if message.startswith("dropped")]
    assert message == "dropped a group: the reward of s0 is nan"


def test_a_reward_that_is_always_nan_stops_the_run_with_its_cause(
    stage: Callable[..., Stage],
) -> None:
    async def scene() -> None:
        acted = stage()
        acted.nan_rewards = range(1000)
        running = asyncio.create_task(acted.controller.run())
        await acted.controller.attach(0, Position())
        assert await acted.step(0, 0) is None
        with pytest.raises(DataError, match=r"4 groups in a row .* the reward of s0 is nan"):
            await running

    play(scene())


def test_questions_that_cannot_be_played_are_left_out(
    stage: Callable[..., Stage], samples: list[Sample], caplog: pytest.LogCaptureFixture
) -> None:
    """Check that a run with only one playable sample of five goes on over several epochs."""

    async def scene() -> None:
        acted = stage()
        acted.unplayable = {sample.sample_id for sample in samples[1:]}
        running = asyncio.create_task(acted.controller.run())
        await acted.controller.attach(0, Position())
        for step in range(3):
            assert await acted.step(step, step) is not None
        rows = [await acted.row() for _ in range(3)]
        assert [row[1]["data/unplayable"] for row in rows if row] == [4, 4, 4]
        await acted.controller.close()
        await running

    play(scene())
    assert sorted(caplog.messages[-4:]) == [
        f"left out {sample.sample_id}: shorten the question" for sample in samples[1:]
    ]


def test_a_run_without_a_playable_question_stops_with_the_reason(
    stage: Callable[..., Stage], samples: list[Sample]
) -> None:
    async def scene() -> None:
        acted = stage()
        acted.unplayable = {sample.sample_id for sample in samples}
        running = asyncio.create_task(acted.controller.run())
        await acted.controller.attach(0, Position())
        assert await acted.step(0, 0) is None
        with pytest.raises(
            DataError, match="none of the 5 questions can be played; .*: shorten the question"
        ):
            await running
        assert len(acted.played()) <= len(samples) + 2 * acted.settings.groups_in_flight

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
