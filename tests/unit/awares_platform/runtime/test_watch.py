"""Tests how a job notices parts that hang, and how it counts and reports their failures."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from awares_platform.runtime.watch import (
    FailureRate,
    PartLost,
    Waiting,
    answer_of,
    guarded,
    restarting,
    watch,
)
from awares_platform.store.errors import LaunchError


class Part:
    """A fake part of a job, such as the trainer.

    The part answers each ping until `stop` is called. It then hangs, as a process after SIGSTOP.
    """

    def __init__(self) -> None:
        self._runs = asyncio.Event()
        self._runs.set()
        self.answers = 0

    def stop(self) -> None:
        self._runs.clear()

    async def ping(self) -> int:
        await self._runs.wait()
        self.answers += 1
        return self.answers


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def played(scene: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await scene()

    asyncio.run(bounded())


def test_a_part_that_stops_is_lost_within_its_deadline() -> None:
    async def scene() -> None:
        part, heard = Part(), []
        watching = asyncio.create_task(watch("the part", part.ping, 0.4, heard.append))
        while part.answers < 3:
            await asyncio.sleep(0.005)
        part.stop()
        stopped = time.monotonic()
        with pytest.raises(PartLost, match=r"the part hangs: .* for 0\.4 s"):
            await watching
        assert 0.35 < time.monotonic() - stopped < 3
        assert heard[:3] == [1, 2, 3]

    played(scene)


def test_a_part_that_dies_is_lost_at_once() -> None:
    async def dies() -> None:
        raise PartLost("the part is dead")

    async def scene() -> None:
        with pytest.raises(PartLost, match="is dead"):
            await watch("the part", dies, 60)

    played(scene)


def test_a_stall_of_the_watching_process_blames_no_part() -> None:
    async def slow() -> str:
        await asyncio.sleep(0.1)
        return "here"

    async def scene() -> None:
        asked = asyncio.create_task(answer_of("the part", slow(), 0.5))
        await asyncio.sleep(0.01)
        time.sleep(1.0)  # The event loop stands still for longer than the deadline.
        assert await asked == "here"

    played(scene)


def test_the_loss_of_a_part_ends_the_work_that_needs_it() -> None:
    async def scene() -> None:
        part, ended = Part(), asyncio.Event()
        part.stop()

        async def work() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        with pytest.raises(PartLost):
            await guarded(work(), watch("the part", part.ping, 0.1))
        assert ended.is_set()

    played(scene)


def test_finished_work_ends_the_watches_and_its_errors_pass() -> None:
    async def scene() -> None:
        part = Part()

        async def work(result: int) -> int:
            await asyncio.sleep(0.02)
            if result < 0:
                raise ValueError("a wrong setting")
            return result

        assert await guarded(work(7), watch("the part", part.ping, 5)) == 7
        with pytest.raises(ValueError, match="a wrong setting"):
            await guarded(work(-1), watch("the part", part.ping, 5))
        answers = part.answers
        await asyncio.sleep(0.6)
        assert part.answers == answers

    played(scene)


def test_failures_count_for_an_hour() -> None:
    clock = Clock()
    failures = FailureRate(2, clock)
    late = [failures.count() for clock.now in (0.0, 1800.0, 3700.0, 7000.0)]
    # The first failure is forgotten when the third occurs, and the second when the fourth occurs.
    assert late == [False, False, False, False] and failures.recent == 2
    assert failures.count()
    assert not any(FailureRate(-1, clock).count() for _ in range(100))
    assert FailureRate(0, clock).count()


def test_a_job_starts_lost_parts_again_until_they_are_lost_too_often() -> None:
    attempts, said = [], []

    def attempt() -> str:
        attempts.append(len(attempts))
        if len(attempts) < 3:
            raise PartLost("the trainer is dead")
        return "finished"

    assert restarting(attempt, FailureRate(2), "grpo.learner_restarts", said.append) == "finished"
    assert said == ["the trainer is dead; the job goes on from its last checkpoint"] * 2
    attempts.clear()
    with pytest.raises(LaunchError, match=r"2 times within an hour.* grpo\.learner_restarts"):
        restarting(attempt, FailureRate(1), "grpo.learner_restarts", said.append)


def test_a_job_says_at_intervals_what_it_waits_for() -> None:
    clock, said = Clock(), []
    waiting = Waiting(said.append, 60.0, clock)
    for clock.now in range(0, 130, 5):
        waiting.tell("1 of 2 actors need 1 GPU")
    assert said == ["waiting for nodes: 1 of 2 actors need 1 GPU"] * 2
    waiting.tell("")
    for clock.now in range(200, 255, 5):
        waiting.tell("1 of 2 actors need 1 GPU")
    assert len(said) == 2
