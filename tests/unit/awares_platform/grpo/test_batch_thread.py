"""Tests that the controller's event loop goes on while a thread works on a whole batch."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from awares.sample import Sample
from awares_platform.config.grpo import GrpoConfig
from awares_platform.grpo import batch_thread
from awares_platform.grpo.batch_thread import BatchThread
from awares_platform.grpo.group import Group, Outcome, Position, Prompt, StepBatch
from awares_platform.grpo.shard import StepShard, shards
from tests.unit.awares_platform.grpo.stage import Stage, play, until


class Held:
    """A function that blocks its thread until `release` is called, but for at most two seconds."""

    def __init__(self, function: Callable) -> None:
        self._function, self._released = function, threading.Event()
        self.entered = False

    def __call__(self, *arguments: object) -> object:
        self.entered = True
        assert self._released.wait(2), "the event loop stands still"
        return self._function(*arguments)

    async def release(self) -> None:
        """Wait until the function is called, and then let the function run."""
        await until(lambda: self.entered)
        self._released.set()


def test_the_event_loop_goes_on_while_a_batch_is_split(
    stage: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(batch_thread.shards)
    monkeypatch.setattr(batch_thread, "shards", held)

    async def scene() -> None:
        acted = stage()
        async with acted.running():
            coming = asyncio.create_task(acted.controller.batch(0, 0, 0, 1))
            await held.release()
            assert isinstance(await coming, StepShard)

    play(scene())


def test_the_event_loop_goes_on_while_a_batch_is_described(
    stage: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(batch_thread.batch_metrics)
    monkeypatch.setattr(batch_thread, "batch_metrics", held)

    async def scene() -> None:
        acted = stage()
        async with acted.running():
            # The learner gets its batch before the metrics are ready.
            assert isinstance(await acted.controller.batch(0, 0, 0, 1), StepShard)
            told = asyncio.create_task(acted.controller.learned(0, {"policy/kl": 0.5}))
            await held.release()
            await told
            row = await acted.row()
            assert row is not None and row[1]["reward/mean"] == 1.0 and row[1]["policy/kl"] == 0.5

    play(scene())


def test_the_event_loop_goes_on_while_the_next_views_are_found(
    stage: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(batch_thread.shown)
    monkeypatch.setattr(batch_thread, "shown", held)

    async def scene() -> None:
        acted = stage()
        async with acted.running():
            coming = asyncio.create_task(acted.controller.upcoming(0, 0, 0, 1))
            await held.release()
            assert len(await coming) == 1

    play(scene())


def test_the_next_views_of_all_ranks_are_found_at_once(
    stage: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    split: list[int] = []

    def counted(batch: StepBatch, *arguments: Any) -> list[StepShard]:
        split.append(batch.step)
        return shards(batch, *arguments)

    monkeypatch.setattr(batch_thread, "shards", counted)

    async def scene() -> None:
        acted = stage()
        async with acted.running():
            forecasts = [acted.controller.upcoming(0, 0, rank, 2) for rank in range(2)]
            assert [len(views) for views in await asyncio.gather(*forecasts)] == [1, 1]
            assert split == [0]

    play(scene())


class Traced(Group):
    """A group that notes which thread frees it."""

    freed: ClassVar[list[str]] = []

    def __del__(self) -> None:
        Traced.freed.append(threading.current_thread().name)


def test_a_former_batch_is_freed_in_the_thread(samples: list[Sample]) -> None:
    Traced.freed.clear()
    groups = (Traced(Prompt(number, 0, samples[0]), (), Outcome.READY) for number in range(3))
    held: list[tuple[StepBatch, int] | None] = [(StepBatch(0, tuple(groups), Position(3)), 0), None]
    BatchThread(GrpoConfig(), packed=False).release(held)

    async def scene() -> None:
        await until(lambda: len(Traced.freed) == 3)

    play(scene())
    assert held == [] and set(Traced.freed) == {"batches_0"}
