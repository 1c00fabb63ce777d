"""Scores groups in worker processes, so that a slow reward does not hold up the controller.

    controller --score(prompt, rollout)--> queue --several groups at once--> worker 0 .. n-1
        ^                                                                       |
        +---- Group: rewards, advantages <--- one list of rewards a group ------+

A worker may get several groups at once, but it calls the reward once for each group. So the number
of workers does not change the rewards. If a worker is lost, another worker scores its groups, and a
new worker replaces it.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from awares.episode import Episode
from awares.reward import RewardValue
from awares.sample import Sample
from awares_platform.config.grpo import GrpoConfig
from awares_platform.grpo.group import Group, GroupRollout, Prompt
from awares_platform.grpo.scoring import grouped, unplayable
from awares_platform.runtime.watch import FailureRate
from awares_platform.store.errors import LaunchError

log = logging.getLogger(__name__)

_LARGEST_CALL = 16
"""The largest number of groups in one call of a worker. The groups share the fixed cost of a
call."""
_ATTEMPTS = 3
"""The run stops if this number of workers is lost while they score the same group. It also stops if
a worker fails to start this number of times in a row."""
_RESTART_PAUSE_S = 1.0
_REPORT_EVERY_S = 60.0
"""Seconds between two messages about a worker that has not started."""

Asked = tuple[Sample, tuple[Episode, ...]]
"""A sample and the G episodes that answer it."""


class WorkerLost(Exception):
    """The reward worker's process is gone or gives no answer."""


class WorkerReclaimed(WorkerLost):
    """The cloud has taken back the worker's node, after a notice. This is not a failure."""


class RewardWorker(Protocol):
    """The interface through which the pool uses a reward worker.

    `start` and `rewards` raise WorkerLost if the worker's process is lost. They also raise the
    reward's own errors.
    """

    async def start(self) -> None:
        """Start the process, and return once it has built the reward."""
        ...

    async def rewards(self, asked: Sequence[Asked]) -> list[list[RewardValue]]:
        """Return the rewards of each group's episodes."""
        ...

    def kill(self) -> None:
        """End the worker's process if it still runs."""
        ...


@dataclass(eq=False, slots=True)
class _Waiting:
    """A group that waits for its rewards.

    `lost` counts the workers that died or hung while they scored this group.
    """

    asked: Asked
    values: asyncio.Future[list[RewardValue]]
    lost: int = 0


class RewardPool:
    """Scores groups in grpo.reward_workers workers. Use the pool as an asynchronous context.

    `spawn` starts a worker. `stop` gets an error that ends the pool.

    Example:
        async with RewardPool(settings, spawn, controller.stop) as score:
            group = await score(prompt, rollout)
    """

    def __init__(
        self,
        settings: GrpoConfig,
        spawn: Callable[[int], RewardWorker],
        stop: Callable[[Exception], Awaitable[None]],
    ) -> None:
        self._settings, self._spawn, self._stop = settings, spawn, stop
        self._queue: deque[_Waiting] = deque()
        # This semaphore counts the groups in the queue. Workers without work wait for it.
        self._queued = asyncio.Semaphore(0)
        self._unscored: set[_Waiting] = set()
        # The indices of the workers that have started.
        self._running: set[int] = set()
        self._losses = FailureRate(settings.actor_restarts)
        self._failure: Exception | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def ready(self) -> bool:
        """Whether a worker runs."""
        return bool(self._running)

    async def __aenter__(self) -> Self:
        workers = range(self._settings.reward_workers)
        self._tasks = [asyncio.create_task(self._tend(index)) for index in workers]
        return self

    async def __aexit__(self, *error: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def __call__(self, prompt: Prompt, rollout: GroupRollout) -> Group:
        """Score the episodes of one prompt together. Raises whatever error the reward raises.

        For a prompt that cannot be played, the method does not call the reward.
        """
        if rollout.fault:
            return unplayable(prompt, rollout)
        if self._failure is not None:
            raise self._failure
        values = asyncio.get_running_loop().create_future()
        waiting = _Waiting((prompt.sample, rollout.episodes), values)
        self._unscored.add(waiting)
        self._queue.append(waiting)
        self._queued.release()
        try:
            return grouped(prompt, rollout, await values, self._settings)
        finally:
            self._unscored.discard(waiting)

    async def _tend(self, index: int) -> None:
        """Keep the worker of `index` running, and stop the run if this is not possible."""
        try:
            await self._keep(index)
        except Exception as error:
            self._failure = error
            for waiting in self._unscored:
                if not waiting.values.done():
                    waiting.values.set_exception(error)
            await self._stop(error)

    async def _keep(self, index: int) -> None:
        failed = 0
        while True:
            worker = self._spawn(index)
            try:
                await self._start(worker, index)
                failed = -1
                self._running.add(index)
                await self._serve(worker)
            except WorkerLost as error:
                failed += 1
                self._count(index, error)
                if failed == _ATTEMPTS:
                    raise LaunchError(
                        f"reward worker {index} did not start {failed} times in a row "
                        f"(last: {error}); see Ray's logs for the cause"
                    ) from error
            finally:
                self._running.discard(index)
                worker.kill()
            await asyncio.sleep(_RESTART_PAUSE_S)

    def _count(self, index: int, error: WorkerLost) -> None:
        too_many = not isinstance(error, WorkerReclaimed) and self._losses.count()
        log.warning("reward worker %d is gone (%s); it is replaced", index, error)
        if too_many:
            raise LaunchError(
                f"reward workers were lost {self._losses.recent} times within an hour "
                f"(last: {error}); see Ray's logs for the cause, or raise grpo.actor_restarts"
            ) from error

    async def _start(self, worker: RewardWorker, index: int) -> None:
        """Start the worker. There is no time limit, because nodes may be missing for hours."""
        starting = asyncio.ensure_future(worker.start())
        try:
            while not (await asyncio.wait([starting], timeout=_REPORT_EVERY_S))[0]:
                log.warning(
                    "reward worker %d has not started yet; it needs a node with "
                    "grpo.reward_cpus=%g free CPUs",
                    index,
                    self._settings.reward_cpus,
                )
            starting.result()
        finally:
            starting.cancel()

    async def _serve(self, worker: RewardWorker) -> None:
        """Score groups until the worker is lost or the reward raises an error."""
        while True:
            if not (held := await self._next()):
                continue
            try:
                async with asyncio.timeout(self._settings.reward_timeout_s):
                    found = await worker.rewards([waiting.asked for waiting in held])
            except TimeoutError:
                limit = self._settings.reward_timeout_s
                error = WorkerLost(f"no answer within grpo.reward_timeout_s={limit:g}")
                self._return(held, error)
                raise error from None
            except WorkerLost as error:
                self._return(held, error)
                raise
            for waiting, values in zip(held, found, strict=True):
                if not waiting.values.done():
                    waiting.values.set_result(values)

    async def _next(self) -> list[_Waiting]:
        """Wait for a group, and return one worker's share of the groups that wait.

        A group whose worker was lost is returned alone, because it may be the cause of the loss.
        """
        await self._queued.acquire()
        held = [self._queue.popleft()]
        share = min(len(self._queue) // self._settings.reward_workers, _LARGEST_CALL - 1)
        while len(held) <= share and not (held[0].lost or self._queue[0].lost):
            if self._queued.locked():
                break  # The other groups belong to workers that have just been woken.
            await self._queued.acquire()
            held.append(self._queue.popleft())
        # Leave out the groups of actors that have died, because no task waits for their rewards.
        return [waiting for waiting in held if not waiting.values.done()]

    def _return(self, held: Sequence[_Waiting], error: WorkerLost) -> None:
        """Queue the groups again after the loss of their worker."""
        for waiting in reversed(held):
            waiting.lost += not isinstance(error, WorkerReclaimed)
            if waiting.lost == _ATTEMPTS:
                sample, _ = waiting.asked
                raise LaunchError(
                    f"{_ATTEMPTS} reward workers were lost with the episodes of {sample.sample_id} "
                    f"(last: {error}); correct method.reward, or see Ray's logs for the cause"
                )
            self._queue.appendleft(waiting)
            self._queued.release()
