"""Notices dead and hung processes of a job, and counts failures within the last hour.

A watched process is called a part. `watch` pings a part, and raises PartLost if it does not answer
in time.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from awares.errors import AwaresError
from awares_platform.store.errors import LaunchError

HOUR_S = 3600.0
ENGINE_MARGIN = 1.25
"""An actor with an engine must answer within `run.hang_timeout_s` times this factor.

The actor itself notices a hung engine after `run.hang_timeout_s`. The additional time is for
killing the engine's processes.
"""
_SLICES = 20
"""The smallest number of short waits into which `answer_of` divides its time limit."""
_SLICE_S = 1.0
_PAUSE_S = 5.0
T = TypeVar("T")
Answer = TypeVar("Answer")


class PartLost(AwaresError):
    """A process of a job is dead or hangs. The job may start it again."""


class FailureRate:
    """Counts failures within the last hour. Up to `most` are accepted, or any number if it is -1.

    Example:
        failures = FailureRate(20)
        if failures.count():
            raise LaunchError(f"{failures.recent} failures within an hour")
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = math.inf if most < 0 else most
        self._clock = clock
        self._times: deque[float] = deque()

    @property
    def recent(self) -> int:
        """The number of failures within the last hour."""
        while self._times and self._clock() - self._times[0] > HOUR_S:
            self._times.popleft()
        return len(self._times)

    def count(self) -> bool:
        """Count a failure. Return whether the last hour has more failures than are accepted."""
        self._times.append(self._clock())
        return self.recent > self._most


class Waiting:
    """Prints what a job waits for, by default once a minute.

    Example:
        waiting = Waiting(progress.say)
        waiting.tell("the learner needs 8 GPU")  # printed after a minute without 8 GPU
        waiting.tell("")  # the learner has its nodes
    """

    def __init__(
        self,
        say: Callable[[str], None],
        every_s: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._say, self._every_s, self._clock = say, every_s, clock
        self._since: float | None = None

    def tell(self, missing: str) -> None:
        """Note what is missing now. The text is "" if nothing is missing.

        Print a line after each minute in which something is missing.
        """
        if not missing:
            self._since = None
        elif self._since is None:
            self._since = self._clock()
        elif self._clock() - self._since >= self._every_s:
            self._since = self._clock()
            self._say(f"waiting for nodes: {missing}")


def restarting(
    attempt: Callable[[], T],
    losses: FailureRate,
    key: str,
    say: Callable[[str], None],
    kept: str = "its last checkpoint",
) -> T:
    """Return the result of `attempt`. Call `attempt` again each time it raises PartLost.

    `say` prints a line for each loss. Raises LaunchError if parts are lost more often than `losses`
    accepts; `key` names the setting with this limit.
    """
    while True:
        try:
            return attempt()
        except PartLost as lost:
            if losses.count():
                raise LaunchError(
                    f"{lost}; this happened {losses.recent} times within an hour: find the cause "
                    f"in Ray's logs, then run the job again, or raise {key}"
                ) from None
            say(f"{lost}; the job goes on from {kept}")


async def watch(
    name: str,
    ping: Callable[[], Awaitable[Answer]],
    within_s: float,
    heard: Callable[[Answer], None] = lambda _: None,
) -> None:
    """Ping a process again and again, and call `heard` with each answer. Never return.

    Raises PartLost if the process `name` gives no answer within `within_s` seconds.
    """
    while True:
        heard(await answer_of(name, ping(), within_s))
        await asyncio.sleep(min(_PAUSE_S, within_s / _SLICES))


async def answer_of(name: str, asked: Awaitable[Answer], within_s: float) -> Answer:
    """Return the result of `asked`. Raise PartLost if it takes longer than `within_s` seconds.

    The function counts short waits, not seconds, so a pause of this process raises no PartLost.
    """
    answer = asyncio.ensure_future(asked)
    pause = min(_SLICE_S, within_s / _SLICES)
    try:
        for _ in range(math.ceil(within_s / pause)):
            if (await asyncio.wait([answer], timeout=pause))[0]:
                return answer.result()
        raise PartLost(
            f"{name} hangs: it gave no answer for {within_s:g} s (see run.hang_timeout_s)"
        )
    finally:
        answer.cancel()


async def guarded(work: Coroutine[Any, Any, T], *watches: Coroutine[Any, Any, None]) -> T:
    """Return the result of `work`, or raise its error.

    If one of `watches` raises an error first, the function cancels `work` and raises that error.
    """
    working = asyncio.ensure_future(work)
    watching = [asyncio.ensure_future(one) for one in watches]
    try:
        done, _ = await asyncio.wait([working, *watching], return_when=asyncio.FIRST_COMPLETED)
        for task in watching:
            if task in done:
                task.result()
        return await working
    finally:
        for task in (working, *watching):
            task.cancel()
        await asyncio.gather(working, *watching, return_exceptions=True)
