"""Controller: keeps the actors busy, judges what they bring back, hands batches to the learner.

Per actor one task tends it: start -> (follow the weight bus  ||  issue prompts while the buffer has room) -> on its death give its
prompts back and start another. Whatever else goes wrong (a canary mismatch first of all) stops the whole run: `batch` then returns None,
so that the learner returns, and `run` raises the cause.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Protocol

from awares_platform.config.grpo import GrpoConfig
from awares_platform.engine.follow import Loaded, Missed
from awares_platform.errors import LaunchError
from awares_platform.grpo.buffer import EpisodeBuffer
from awares_platform.grpo.group import Group, GroupRollout, Outcome, Position, Prompt, StepBatch
from awares_platform.grpo.journal import Journal, latest_attempts
from awares_platform.grpo.shard import StepShard, shards
from awares_platform.grpo.step_metrics import StepMetrics

log = logging.getLogger(__name__)

_RESTART_PAUSE_S = 1.0


class ActorLost(Exception):
    """The actor's process is gone; nothing that it was doing will come back."""


class Actor(Protocol):
    """A rollout actor as the controller sees it. Every method raises ActorLost once its process is gone."""

    async def start(self) -> None:
        """Returns when the engine is up."""
        ...

    def follow(self) -> AsyncIterator[Loaded | Missed]:
        """Endless: one item per version loaded from the weight bus, or missed."""
        ...

    async def rollout(self, prompt: Prompt) -> GroupRollout:
        """Never raises for a bad rollout."""
        ...

    def kill(self) -> None:
        """Ends the process, if it still runs."""
        ...


class Controller:
    """Runs on one event loop. The learner calls `attach`, then per step `batch` and `learned`, at last `close`."""

    def __init__(
        self,
        settings: GrpoConfig,
        buffer: EpisodeBuffer,
        journal: Journal,
        judge: Callable[[Prompt, GroupRollout], Group],
        spawn: Callable[[int], Actor],
    ) -> None:
        self._settings = settings
        self._buffer = buffer
        self._journal = journal
        self._judge = judge
        self._spawn = spawn
        self._changed = asyncio.Condition()
        self._records: asyncio.Queue[tuple[int, dict[str, float]] | None] = asyncio.Queue()
        self._metrics = StepMetrics()
        self._unwritten: list[Group] = []
        self._shards: asyncio.Future[list[StepShard] | None] | None = None
        self._batch: tuple[StepBatch, int, float] | None = (
            None  # what the learner works on, the version it updates, since when
        )
        self._restarts = 0
        self._fruitless = 0
        # Changes when a learner attaches, so that a batch for the former one is given up.
        self._session = 0
        # Whether the buffer begins where the run stands; until then nothing is rolled out.
        self._restored = False
        # Held while the journal is read or written.
        self._writing = asyncio.Lock()
        self._failure: Exception | None = None
        self._closed = False

    # -- the fleet ---------------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Tends the actors until `close`. Raises what stopped the run."""
        tending = [
            asyncio.create_task(self._tend(index)) for index in range(self._settings.rollout_actors)
        ]
        closing = asyncio.create_task(self._until(lambda: self._closed))
        try:
            done, _ = await asyncio.wait([*tending, closing], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            if self._failure is not None:
                raise self._failure
        finally:
            for task in (*tending, closing):
                task.cancel()
            await asyncio.gather(*tending, closing, return_exceptions=True)
            await self._flush()
            await self.close()

    async def _tend(self, index: int) -> None:
        """Keeps actor `index` alive and at work."""
        while True:
            actor = self._spawn(index)
            try:
                await actor.start()
                await self._drive(actor, index)
            except ActorLost as error:
                self._count_restart(index, error)
            finally:
                actor.kill()
            await asyncio.sleep(_RESTART_PAUSE_S)

    def _count_restart(self, index: int, error: ActorLost) -> None:
        self._restarts += 1
        self._metrics.restarted(index)
        log.warning(
            "rollout actor %d is gone (%s); its prompts are issued again and it is replaced",
            index,
            error,
        )
        if self._restarts > self._settings.actor_restarts:
            raise LaunchError(
                f"rollout actors died {self._restarts} times (last: {error}); see Ray's logs for the cause, or raise grpo.actor_restarts"
            ) from error

    async def _drive(self, actor: Actor, index: int) -> None:
        """Follows weights and issues prompts side by side, until one of them raises."""
        loaded = [-1]
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._follow(actor, index, loaded))
                group.create_task(self._issue(actor, loaded, group))
        except ExceptionGroup as errors:
            fatal = [error for error in errors.exceptions if not isinstance(error, ActorLost)]
            raise (fatal or errors.exceptions)[0] from None

    async def _follow(self, actor: Actor, index: int, loaded: list[int]) -> None:
        async for load in actor.follow():
            if isinstance(load, Missed):
                self._metrics.missed(load)
                log.warning("a rollout actor goes on with version %d: %s", loaded[0], load.reason)
                continue
            loaded[0] = load.version
            self._metrics.loaded(index, load)
            await self._notify()

    async def _issue(self, actor: Actor, loaded: list[int], group: asyncio.TaskGroup) -> None:
        """Starts a group whenever the actor has a hand free and the buffer has room for what its weights would produce."""
        hands = asyncio.Semaphore(self._settings.groups_in_flight)
        while True:
            await hands.acquire()
            await self._until(lambda: self._restored and self._buffer.room(loaded[0]) > 0)
            prompt = self._buffer.issue()
            self._clock()
            task = group.create_task(self._roll(actor, prompt))
            task.add_done_callback(lambda _: hands.release())

    async def _roll(self, actor: Actor, prompt: Prompt) -> None:
        """One group from issue to buffer; given back when it does not come to that."""
        try:
            rollout = await actor.rollout(prompt)
            group = await asyncio.to_thread(self._judge, prompt, rollout)
        except BaseException:
            self._buffer.reissue(prompt)
            self._clock()
            raise
        if self._buffer.add(group):
            self._clock()
            self._unwritten.append(group)
            self._metrics.finished(group)
            self._refuse_fruitless(group)
            await self._notify()

    def _clock(self) -> None:
        """Notes how many groups are in flight from now on."""
        self._metrics.overlap.change(self._buffer.in_flight, time.monotonic())

    def _refuse_fruitless(self, group: Group) -> None:
        """A run whose groups all fail would never hand out a batch, and never say why."""
        self._fruitless = self._fruitless + 1 if group.outcome is Outcome.FAILED else 0
        if self._fruitless >= 2 * self._settings.groups_per_step:
            errors = sorted(
                {member.episode.error for member in group.members if member.episode.error}
            )
            raise LaunchError(
                f"{self._fruitless} groups in a row had no two usable episodes; the last failed with: {'; '.join(errors)}"
            )

    # -- the learner -------------------------------------------------------------------------------------------------------------

    async def attach(self, version: int, position: Position) -> None:
        """A learner begins at `position` with `version` published: after a fresh start, or after a restart from its checkpoint."""
        # The new session tells a batch that the former learner waits for to give up.
        self._session += 1
        await self._notify()
        if self._shards is not None:
            await self._shards
        async with self._writing:
            # Nothing is written meanwhile, so each finished group is in the journal as read here,
            # or still unwritten when the read returns.
            written = await asyncio.to_thread(self._journal.read)
            groups = latest_attempts([*written, *self._unwritten])
            self._buffer.restore(position, groups, version)
            self._session += 1
            self._restored = True
        self._shards = self._batch = None
        log.info(
            "learner at version %d: %d groups ready, %d in flight",
            version,
            len(self._buffer),
            self._buffer.in_flight,
        )
        await self._notify()

    async def batch(self, step: int, version: int, rank: int, ranks: int) -> StepShard | None:
        """Rank `rank`'s share of the batch of `step`, which updates `version`; None once the run has stopped.

        The first rank to ask assembles the batch. The run stops when none becomes ready within grpo.batch_timeout_s.
        """
        if self._batch is None or self._batch[0].step != step:
            if self._shards is None or self._shards.done():
                self._shards = asyncio.ensure_future(self._assemble(step, version, ranks))
        assert self._shards is not None
        cut = await asyncio.shield(self._shards)
        return None if cut is None else cut[rank]

    async def _assemble(self, step: int, version: int, ranks: int) -> list[StepShard] | None:
        session = self._session
        try:
            async with asyncio.timeout(self._settings.batch_timeout_s):
                await self._until(
                    lambda: self._closed or self._session != session or self._buffer.full(version)
                )
        except TimeoutError:
            self._failure = LaunchError(
                f"no batch for step {step} within grpo.batch_timeout_s={self._settings.batch_timeout_s:g}: {self._state()}"
            )
            await self.close()
        if self._closed or self._session != session:
            return None
        batch = self._buffer.take(step, version)
        self._batch = (batch, version, time.monotonic())
        await self._notify()  # there is room again
        await self._flush()
        return shards(batch, ranks, self._settings.minibatches, self._settings.micro_batch)

    def _state(self) -> str:
        ready = f"{len(self._buffer)} of {self._settings.groups_per_step} groups ready"
        return f"{ready}, {self._buffer.in_flight} in flight, {self._restarts} restarts of actors"

    async def learned(self, step: int, metrics: Mapping[str, float]) -> None:
        """Rank 0 finished `step` and published its version: its metrics join the batch's."""
        assert self._batch is not None and self._batch[0].step == step, (
            f"step {step} was not handed out"
        )
        batch, version, start = self._batch
        record = self._metrics.step(batch, version, metrics, start, time.monotonic())
        record["buffer/size"] = float(len(self._buffer))
        record["buffer/in_flight"] = float(self._buffer.in_flight)
        record["buffer/dropped"] = float(self._buffer.dropped)
        await self._records.put((step, record))

    async def close(self) -> None:
        """Ends the run: the learner is done, or something failed."""
        if not self._closed:
            self._closed = True
            await self._records.put(None)
        await self._notify()

    async def record(self) -> tuple[int, dict[str, float]] | None:
        """The next finished step's metrics; None after the last."""
        return await self._records.get()

    # -- waiting and writing -----------------------------------------------------------------------------------------------------

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with self._changed:
            await self._changed.wait_for(condition)

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _flush(self) -> None:
        """Writes what the journal does not hold yet, as one segment."""
        async with self._writing:
            groups, self._unwritten = self._unwritten, []
            await asyncio.to_thread(self._journal.append, groups)
