"""Keeps the rollout actors busy, scores their groups, and hands batches to the learner.

    one task per actor:  start --> follow the weights  ||  issue prompts while there is room
                           ^                           |
                           +-- requeue its prompts <---+ the actor dies

An actor that gives no answer for 1.25 * run.hang_timeout_s counts as dead (see fleet.py). The run
survives the deaths of up to grpo.actor_restarts actors an hour. driving.py has the tasks of an
actor. Any other error, such as a canary mismatch, stops the run. `batch` then returns None, so that
the learner returns, and `run` raises the error.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import replace

from awares.view import ImageView
from awares_platform.config.grpo import GrpoConfig
from awares_platform.grpo.actor import Actor, ActorReclaimed, ActorReleased
from awares_platform.grpo.announcing import tell
from awares_platform.grpo.batch_thread import BatchThread
from awares_platform.grpo.buffer import EpisodeBuffer
from awares_platform.grpo.driving import HAND_BACK_S, Driving
from awares_platform.grpo.fleet import Fleet
from awares_platform.grpo.group import Group, GroupRollout, Outcome, Position, Prompt, StepBatch
from awares_platform.grpo.journal import Journal
from awares_platform.grpo.line import Line
from awares_platform.grpo.lineage import Lineage, Spans
from awares_platform.grpo.order import Chosen, Finish, Leave, Restoration, Restore
from awares_platform.grpo.recorder import Recorder
from awares_platform.grpo.segment import Training
from awares_platform.grpo.shard import StepShard
from awares_platform.grpo.sizing import Sizing, least_actors
from awares_platform.grpo.step_metrics import StepMetrics
from awares_platform.grpo.step_rows import StepRow, StepRows
from awares_platform.grpo.unusable import UnusableGroups
from awares_platform.grpo.validation import Validation
from awares_platform.store.errors import LaunchError

log = logging.getLogger(__name__)

Assigned = Sequence[StepShard | Finish | Leave | Restore]
"""What each rank of the learner does next."""

Forecast = tuple[ImageView, ...]
"""The views that a rank of the learner probably needs next, in the order of their use."""

_WAIT_S = 1.0
"""Seconds between two checks whether an actor is ready, while the learner waits for a batch."""


class Controller:
    """Connects the actors with the learner, on one event loop.

    The learner calls `attach`, then `batch` and `learned` in every step, and `close` at the end.
    While it trains, it may call `upcoming`. `can_score` returns whether `score` can work now.
    """

    def __init__(
        self,
        settings: GrpoConfig,
        buffer: EpisodeBuffer,
        journal: Journal,
        score: Callable[[Prompt, GroupRollout], Awaitable[Group]],
        spawn: Callable[[int], Actor],
        validation: Validation,
        packed: bool = False,
        hang_timeout_s: float = 90.0,
        can_score: Callable[[], bool] = lambda: True,
    ) -> None:
        self._settings, self._can_score = settings, can_score
        self._batches = BatchThread(settings, packed)
        self._buffer = buffer
        self._line = Line(buffer)
        self._recorder = Recorder(journal)
        self._changed = asyncio.Condition()
        self._rows = StepRows()
        self._metrics = StepMetrics()
        self._fleet = Fleet(settings, spawn, self._metrics, hang_timeout_s)
        self._driving = Driving(
            settings, buffer, self._line, validation, self._metrics, score, self._receive
        )
        self._sizing = Sizing(least_actors(settings), settings.rollout_actors)
        self._attached = self._draining = False
        self._shards: asyncio.Future[Assigned | None] | None = None
        # The step and the version for which `_shards` was assembled.
        self._asked: tuple[int, int] | None = None
        # The step, the version and the number of ranks of the last forecast, and the views that
        # each rank needs for it.
        self._forecast: tuple[tuple[int, int, int], asyncio.Future[list[Forecast]]] | None = None
        # The learner's current batch, and the version that this batch updates.
        self._batch: tuple[StepBatch, int] | None = None
        # The metrics of the batch's episodes, computed while the learner trains on the batch.
        self._described: asyncio.Future[dict[str, float]] | None = None
        self._unusable = UnusableGroups(buffer.samples, 2 * settings.groups_per_step)
        self._validation = validation
        # `attach` increments this number, so that a call of `_assemble` for the former learner
        # stops waiting.
        self._session = 0
        self._failure: Exception | None = None
        self._closed = False

    # -- the actors

    async def run(self) -> None:
        """Keep the actors running until `close`. Raises the error that stopped the run."""
        actors, drive = range(self._settings.rollout_actors), self._driving.drive
        tending = [asyncio.create_task(self._fleet.tend(index, drive)) for index in actors]
        closing = asyncio.create_task(self._until(lambda: self._closed))
        tasks = [*tending, closing, asyncio.create_task(self._validation.run(self._report))]
        tasks.append(asyncio.create_task(self._observe()))
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            if self._failure is not None:
                raise self._failure
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.close()
            await self._recorder.finish()

    async def announce(self, version: int | None) -> None:
        """Tell all actors that the store has new weights, of which `version` is the newest."""
        self._validation.published(version or 0)
        await tell(self._driving.actors)

    async def _receive(self, group: Group) -> None:
        """Add a group to the buffer, and keep it for the journal."""
        if not self._buffer.add(group):
            return
        self._recorder.add(group)
        self._metrics.finished(group)
        if group.outcome is not Outcome.UNFINISHED:
            self._unusable.check(group)
        await self._notify()

    async def leave(self, nodes: Collection[str]) -> None:
        """Drain and replace the actors on `nodes`, because the cloud will take the nodes back."""
        reason = ActorReclaimed("its node is taken back")
        self._driving.leave(self._driving.on(nodes), reason, HAND_BACK_S)

    async def _observe(self) -> None:
        """Note every second how many actors are busy. Never return."""
        while True:
            await asyncio.sleep(_WAIT_S)
            self._sizing.observe(self._driving.busy, len(self._driving.actors))

    async def _resize(self, waited_s: float) -> None:
        """Fit the number of actors to the load. The learner waited `waited_s` for its batch."""
        wanted = len(self._fleet.wanted)
        change = self._sizing.decide(wanted, waited_s)
        if change is None or self._draining:
            return
        log.warning(
            "the run wants %d instead of %d rollout actors: %s",
            change.actors,
            wanted,
            change.reason,
        )
        surplus = await self._fleet.resize(change.actors, self._driving.draining)
        self._driving.leave(surplus, ActorReleased("the run needs fewer actors"), HAND_BACK_S)

    async def drain(self, within_s: float) -> tuple[int, bool]:
        """Let all actors hand back their groups within `within_s` seconds, and write the journal.

        Return the number of unfinished groups, and whether a learner has attached. Raises
        StoreError if the store fails.
        """
        self._draining = True
        self._line.close()
        await self._notify()
        await self._driving.hand_back(within_s)
        await self._recorder.flush()
        return self._buffer.begun_groups, self._attached

    # -- the learner

    async def attach(self, version: int, position: Position, spans: Spans = ()) -> None:
        """Accept a learner that has started or restarted at `position`.

        The learner publishes its present weights as `version`. `spans` are the versions of earlier
        learners from which the weights descend. Raises StoreError if the journal cannot be read.
        """
        # The new number makes `_assemble` stop waiting for the former learner's batch.
        self._session += 1
        await self._notify()
        if self._shards is not None:
            # Unlike `await`, `asyncio.wait` raises no error of the former learner's batch. The new
            # learner has no use for such an error.
            await asyncio.wait([self._shards])
        lineage, found = await self._recorder.read(
            position, Lineage(spans, version), self._settings.staleness_bound
        )
        self._buffer.restore(position, found.groups, lineage, found.stale)
        self._session += 1
        self._shards = self._batch = self._asked = self._forecast = None
        self._attached = True
        self._sizing.restart()
        await self._validation.attach(lineage, anew=not spans)
        log.info("learner at version %d: %s", version, self._state())
        # From now on the buffer has the run's position, so actors may get prompts.
        if not self._draining:
            self._line.open()
        await self._notify()

    async def batch(
        self, step: int, version: int, rank: int, ranks: int
    ) -> StepShard | Finish | Leave | Restore | None:
        """Return the rank's part of the batch of `step`, a step that updates `version`.

        All ranks may instead get an order (order.py). Return None if the run has stopped or another
        learner attaches.
        """
        if self._shards is None or self._asked != (step, version):
            self._asked = (step, version)
            self._shards = asyncio.ensure_future(self._assemble(step, version, ranks))
        cut = await asyncio.shield(self._shards)
        return None if cut is None else cut[rank]

    async def _assemble(self, step: int, version: int, ranks: int) -> Assigned | None:
        session = self._session
        if self._draining:
            return [Leave()] * ranks
        if self._validation.out_of_patience:
            return [Finish()] * ranks
        if (order := self._validation.restoring()) is not None:
            return [order] * ranks
        keep = await self._validation.register(step, version)

        def over() -> bool:
            return self._closed or self._draining or self._session != session

        await self._await_batch(step, lambda: over() or self._buffer.full(version))
        if over():
            leaving = self._draining and not self._closed and self._session == session
            return [Leave()] * ranks if leaving else None
        batch = self._buffer.take(step, version)
        former, self._batch = [self._batch], (batch, version)
        self._batches.release(former)
        await self._notify()
        await self._recorder.flush(Training.of(batch, version))
        dealt = await self._batches.dealt(batch, ranks)
        metrics = self._batches.metrics(batch, version, self._buffer.lineage)
        self._described = asyncio.ensure_future(metrics)
        return [replace(shard, keep=keep) for shard in dealt]

    async def _await_batch(self, step: int, ready: Callable[[], bool]) -> None:
        """Wait until `ready` returns True. Stop the run after grpo.batch_timeout_s.

        Time without a ready actor or a ready reward worker does not count towards this limit.
        """
        limit, waited = self._settings.batch_timeout_s, 0.0
        while waited < limit:
            pause, counts = min(_WAIT_S, limit), self._can_collect()
            try:
                async with asyncio.timeout(pause):
                    return await self._until(ready)
            except TimeoutError:
                waited += pause if counts and self._can_collect() else 0.0
        message = f"no batch for step {step} within grpo.batch_timeout_s={limit:g}"
        await self.stop(LaunchError(f"{message}: {self._state()}"))

    def _can_collect(self) -> bool:
        return bool(self._fleet.ready) and self._can_score()

    async def upcoming(self, step: int, version: int, rank: int, ranks: int) -> Forecast:
        """Return the views that the rank will probably need in the step `step`, in order of use.

        `version` is the version that the step will probably update. The first call for a step finds
        the views of all ranks. Return () if the step has begun or the learner must stop.
        """
        session = self._session

        def over() -> bool:
            begun = self._batch is not None and self._batch[0].step >= step
            return begun or self._closed or self._session != session

        await self._until(lambda: over() or self._buffer.upcoming_full(version))
        if over():
            return ()
        asked = step, version, ranks
        if self._forecast is None or self._forecast[0] != asked:
            groups = tuple(self._buffer.upcoming(version))
            batch = StepBatch(step, groups, self._buffer.position)
            views = asyncio.ensure_future(self._batches.views(batch, ranks))
            self._forecast = asked, views
        return (await asyncio.shield(self._forecast[1]))[rank]

    def _state(self) -> str:
        ready = f"{len(self._buffer)} of {self._settings.groups_per_step} groups ready"
        return f"{ready}, {self._buffer.in_flight} in flight, {self._fleet.losses} actors restarted"

    async def learned(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record the learner's metrics of `step`. Rank 0 calls this after each step."""
        assert self._batch is not None and self._batch[0].step == step and self._described, (
            f"step {step} was not handed out"
        )
        batch, version = self._batch
        record = self._metrics.step(batch, version, await self._described, metrics)
        record["buffer/size"] = float(len(self._buffer))
        record["buffer/in_flight"] = float(self._buffer.in_flight)
        record["buffer/dropped"] = float(self._buffer.dropped)
        record["data/unplayable"] = float(self._unusable.unplayable)
        record["guards/restores"] = float(self._validation.restores)
        record["actors/ready"] = float(len(self._fleet.ready))
        record["actors/wanted"] = float(len(self._fleet.wanted))
        await self._resize(record.get("time/wait", 0.0))
        self._validation.learned(record["reward/mean"])
        await self._rows.put((step, record))

    async def _report(self, step: int, figures: Mapping[str, float]) -> None:
        """Record the validation metrics of the version after `step` steps."""
        await self._rows.put((step - 1, dict(figures)))

    async def restore(self, most: int) -> Restoration:
        """Let the learner restore the best version, at most `most` times in the whole run."""
        return await self._validation.restore(most)

    async def last(self, step: int, version: int) -> bool:
        """Issue no further prompts, because the learner has finished its last step.

        `version` has the weights after all `step` steps. Return whether the learner must write a
        snapshot of these weights.
        """
        self._line.close()
        return await self._validation.register(step, version)

    async def chosen(self) -> Chosen | None:
        """Wait until every pending version is validated, and return the version to export.

        Return None if the run has stopped, or if its actors are drained.
        """
        settling = asyncio.ensure_future(self._validation.settled())
        closing = asyncio.ensure_future(self._until(lambda: self._closed or self._draining))
        try:
            await asyncio.wait([settling, closing], return_when=asyncio.FIRST_COMPLETED)
        finally:
            settling.cancel()
            closing.cancel()
        if self._closed or self._draining:
            return None
        best = self._validation.best
        return Chosen(best.version, best.step, best.metrics()) if best else Chosen(None, None, {})

    async def shown(self, count: int) -> tuple[int, tuple[Group, ...]]:
        """Return the newest step with a batch, and the first `count` groups of this batch."""
        if self._batch is None:
            return 0, ()
        return self._batch[0].step, self._batch[0].groups[:count]

    async def stop(self, error: Exception) -> None:
        """End the run, and let `run` raise `error`."""
        self._failure = error
        await self.close()

    @property
    def unplaced(self) -> int:
        """The number of rollout actors that wait for a node, or that the run does not want."""
        return self._settings.rollout_actors - len(self._fleet.wanted - self._fleet.unplaced)

    async def close(self) -> None:
        """End the run, because the learner has finished or an error occurred."""
        if not self._closed:
            self._closed = True
            await self._rows.close()
        await self._notify()

    async def record(self, written: int) -> StepRow | None:
        """Return the next row of metrics, or None after the last.

        `written` is the number of rows that the driver has written.
        """
        return await self._rows.next(written)

    async def recorded(self) -> None:
        """Wait until the driver has written the metrics of all finished steps.

        The learner calls this before it saves a checkpoint, because a job that resumes there does
        not repeat these steps.
        """
        await self._rows.written()

    # -- waiting and writing

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with self._changed:
            await self._changed.wait_for(condition)

    async def _notify(self) -> None:
        """Tell the tasks that wait in `_until`, and the actors, that the buffer has changed."""
        self._line.advance()
        async with self._changed:
            self._changed.notify_all()
