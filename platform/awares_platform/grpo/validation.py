"""Decides which versions are validated, and keeps the best one, in the controller's event loop.

    learner asks for a batch --register--> pending --published--> queue --next--> an actor plays
                                                                   ^                    |
                                       the actor dies: give_back --+                 deliver
                                                                                        v
            record in the store, metrics <-- the better version stays <-- figures <-- results

A version is pending until its validation is complete. Meanwhile the store keeps its weights, so
that an actor can load them late. The learner writes a snapshot of the version's training state. A
version can become the best one only once its snapshot is complete. After a restart, the versions
that are still pending are validated.
"""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from awares.sample import Sample
from awares_platform.config.validation import ValidationConfig
from awares_platform.engine.canary import CanaryMismatch
from awares_platform.grpo.lineage import Lineage
from awares_platform.grpo.order import Restoration, Restore
from awares_platform.grpo.record_book import Book, ValidationRecord
from awares_platform.grpo.validated import (
    AnswerScore,
    DueVersion,
    Score,
    Validated,
    better,
    declined,
    measured,
)
from awares_platform.method.play import Played

log = logging.getLogger(__name__)

_ATTEMPTS = 3
_RETRY_S = 5.0
_POLL_S = 0.2

Result = Validated | tuple[DueVersion, Sequence[Played]]
"""Either metrics that an earlier job computed but did not report, or a version and its episodes."""

Report = Callable[[int, Mapping[str, float]], Awaitable[None]]
"""Records validation metrics. The first argument is the number of steps before the version."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """The held-out questions of a run, and how their answers are scored.

    Example:
        HeldOut((sample,), judge, ValidationConfig(every=20), steps=120)
    """

    samples: tuple[Sample, ...]
    judge: AnswerScore
    settings: ValidationConfig
    steps: int


class Validation:
    """The validated and the pending versions of a run. All methods are called on one event loop.

    `score` computes rewards. `reported` has the versions that are already in the run's metrics.

    Example:
        validation = Validation(held_out, score, StoredBook(store, "mini"))
    """

    def __init__(
        self, held_out: HeldOut, score: Score, book: Book, reported: Collection[int] = ()
    ) -> None:
        self.samples = held_out.samples
        self._held_out, self._settings = held_out, held_out.settings
        self._score, self._book, self._reported = score, book, reported
        self._record: ValidationRecord | None = None
        self._queue: asyncio.Queue[DueVersion] = asyncio.Queue()
        self._queued: set[int] = set()
        self._results: asyncio.Queue[Result] = asyncio.Queue()
        self._failures = Counter[int]()
        self._settled = asyncio.Event()
        self._rewards: deque[float] = deque(maxlen=max(1, self._settings.every))
        self._lineage = Lineage()
        self._restoring: int | None = None
        self._head = 0

    # -- the learner

    async def attach(self, lineage: Lineage, anew: bool = False) -> None:
        """Drop the pending versions that a lost learner has not published or not saved.

        `lineage` belongs to the new learner. If `anew` is true, the learner has no checkpoint, and
        the run forgets all earlier versions.
        """
        self._lineage = lineage
        if self._record is None:
            self._record = await asyncio.to_thread(self._book.read)
            # Report the versions that a killed job recorded but did not report.
            for one in self._record.entries if not anew else ():
                if one.version not in self._reported:
                    self._results.put_nowait(one)
        if anew:
            await self._start_anew()
        for due in [*self._record.pending]:
            if due.version >= lineage.first or not await self._saved(due):
                await self._forget(due)
        self._head = max(self._head, lineage.first - 1)
        self._enqueue()
        self._check_settled()

    async def _start_anew(self) -> None:
        known = self._known()
        self._record = ValidationRecord()
        if known != self._record:
            await self._write()
            for one in (*known.pending, *known.entries):
                if one in known.pending or one.version == known.best:
                    await asyncio.to_thread(self._book.drop, one.version)

    async def register(self, step: int, version: int) -> bool:
        """Make `version`, the version after `step` steps, pending if it must be validated.

        Return whether the learner must write a snapshot of the version.
        """
        record = self._known()
        if not self.samples or not self._settings.due(step, self._held_out.steps):
            return False
        if any(self._same(one, step, version) for one in (*record.entries, *record.pending)):
            return False
        record.pending.append(DueVersion(step, version))
        self._settled.clear()
        await asyncio.to_thread(self._book.keep, version)
        await self._write()
        self._enqueue()
        return step > 0

    def _same(self, one: Validated | DueVersion, step: int, version: int) -> bool:
        """Return whether `one` has the weights of `version`, the version after `step` steps."""
        kept = self._lineage.behind(one.version, self._lineage.first) is not None
        return one.version == version or (one.step == step and kept)

    def learned(self, reward: float) -> None:
        """Note the mean reward of a training step."""
        self._rewards.append(reward)

    @property
    def best(self) -> Validated | None:
        """The best version so far, or None."""
        return self._known().found(self._known().best)

    @property
    def out_of_patience(self) -> bool:
        """Whether none of the last grpo.validation.patience versions has become the best one."""
        record, patience = self._known(), self._settings.patience
        if patience is None or record.best is None:
            return False
        versions = [one.version for one in record.entries]
        return len(versions) - 1 - versions.index(record.best) >= patience

    async def restore(self, most: int) -> Restoration:
        """Let the learner restore the best version, at most `most` times in the whole run."""
        record = self._known()
        if record.best is None or record.restores >= most:
            return Restoration(None, record.restores)
        record.restores += 1
        self._restoring = record.best
        await self._write()
        return Restoration(record.best, record.restores)

    def restoring(self) -> Restore | None:
        """Return the order to restore a version, or None. Each order is returned only once."""
        version, self._restoring = self._restoring, None
        return None if version is None else Restore(version)

    @property
    def restores(self) -> int:
        """The number of restorations in the run."""
        return self._known().restores

    async def settled(self) -> None:
        """Wait until no version is pending."""
        await self._settled.wait()

    # -- the actors

    def published(self, version: int) -> None:
        """Let the actors validate the pending versions up to `version`, which is now published."""
        self._head = max(self._head, version)
        if self._record is not None:
            self._enqueue()

    async def next(self) -> DueVersion:
        """Wait for a version that an actor must validate, and return it."""
        while True:
            due = await self._queue.get()
            if due in self._known().pending:
                return due

    def give_back(self, due: DueVersion) -> None:
        """Queue a version for another actor, because the actor that validated it is lost."""
        self._queue.put_nowait(due)

    async def failed(self, due: DueVersion, error: Exception) -> None:
        """Queue a version again after an error.

        After the third failed attempt, give the version up with a warning. Raise a CanaryMismatch
        at once, because it must stop the run.
        """
        if isinstance(error, CanaryMismatch):
            raise error
        self._failures[due.version] += 1
        if self._failures[due.version] < _ATTEMPTS:
            try:
                await asyncio.sleep(_RETRY_S)
            finally:  # A lost actor cancels this task, but the version must still be queued.
                self._queue.put_nowait(due)
            return
        log.warning("version %d is not validated: %s", due.version, error)
        await self._forget(due)

    def deliver(self, due: DueVersion, played: Sequence[Played]) -> None:
        """Pass the episodes of a version to `run`, which computes the version's metrics."""
        self._results.put_nowait((due, played))

    # -- the results

    async def run(self, report: Report) -> None:
        """Compute and report the metrics of each version once an actor has answered the questions.

        The method never returns. Raises whatever error the reward raises, and StoreError if the
        store fails.
        """
        while True:
            found = await self._results.get()
            if isinstance(found, Validated):
                await self._tell(found, report)
                continue
            due, played = found
            new = await measured(due, played, self._score, self._held_out.judge, self._settings)
            if new is None:
                log.warning("version %d answers no held-out question", due.version)
                await self._forget(due)
            elif await self._until_saved(due):
                await self._settle(due, new, report)

    async def _until_saved(self, due: DueVersion) -> bool:
        """Return True once the version's snapshot is complete, or False if the run drops it."""
        while due in self._known().pending:
            if await self._saved(due):
                return due in self._known().pending
            await asyncio.sleep(_POLL_S)
        return False

    async def _settle(self, due: DueVersion, new: Validated, report: Report) -> None:
        record, before = self._known(), self.best
        new = replace(new, train_reward=fmean(self._rewards) if self._rewards else None)
        new = replace(new, decline=declined(new, record.entries))
        best = before
        if due.step:
            best = better(before, new, record.entries)
            record.best = best.version
        record.entries.append(new)
        record.pending.remove(due)
        await self._write()
        for one in (before, new):
            if one is not None and one != best:
                await asyncio.to_thread(self._book.drop, one.version)
        await self._tell(new, report)
        self._check_settled()

    async def _tell(self, one: Validated, report: Report) -> None:
        best = {"validation/best": float(one.version == self._known().best)}
        await report(one.step, {**one.metrics(), **best})

    async def _forget(self, due: DueVersion) -> None:
        record = self._known()
        if due in record.pending:
            record.pending.remove(due)
            await self._write()
            await asyncio.to_thread(self._book.drop, due.version)
        self._check_settled()

    def _enqueue(self) -> None:
        """Queue each pending version that is published and was not queued before."""
        for due in self._known().pending:
            if due.version <= self._head and due.version not in self._queued:
                self._queued.add(due.version)
                self._queue.put_nowait(due)

    async def _saved(self, due: DueVersion) -> bool:
        """Return whether the version is the starting policy, or has a complete snapshot."""
        return not due.step or await asyncio.to_thread(self._book.complete, due.version)

    async def _write(self) -> None:
        await asyncio.to_thread(self._book.write, self._known())

    def _known(self) -> ValidationRecord:
        assert self._record is not None, "`attach` reads the record"
        return self._record

    def _check_settled(self) -> None:
        if not self._known().pending:
            self._settled.set()
