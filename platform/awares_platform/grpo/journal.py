"""Stores every finished group of a run in the object store, and which step trains on it.

If an actor is drained, the journal also stores the actor's unfinished groups. A later actor of the
same job, or of the next one, continues these groups from their sampled tokens.

    runs/<run>/episodes/<start>/<segment>.parquet

A segment is one file, and segment.py defines its content. The controller writes one segment per
step. The store writes it atomically, under a unique number. If two controllers write segments with
the same number, the second write fails. <start> is the beginning of the recipe's digest. A job with
another recipe, for example another starting policy, ignores the segment.

The journal stores no pixels, because every view can be cut from the original image again.

A prompt is settled if the learner no longer needs a group of it; group.Position has the definition.
Each segment states the highest prompt number in it and in all older segments. `read` begins with
the newest segment. It stops once this number is below the first prompt that is not settled. A
resumed run therefore reads few segments from before its checkpoint.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from awares.errors import DataError
from awares_platform.grpo.group import Group, Outcome, Position
from awares_platform.grpo.segment import (
    Header,
    Pair,
    Segment,
    StoredSegment,
    Training,
    encode,
    pair,
)
from awares_platform.store import ObjectStore
from awares_platform.store.errors import PreconditionFailed

log = logging.getLogger(__name__)
_START_DIGITS = 16
_ENDING = ".parquet"


@dataclass(frozen=True, slots=True)
class Recovered:
    """The groups that the journal holds for prompts that are not settled (see Position).

    Example:
        Recovered((group,), {18: 0})
    """

    groups: tuple[Group, ...]
    """The group of the latest attempt at each prompt, in the order of prompt numbers.

    Groups that are too old or damaged are left out.
    """
    stale: dict[int, int]
    """Maps the prompt number of each omitted group to the group's attempt."""


@dataclass(frozen=True, slots=True)
class _Unconfirmed:
    """A segment whose write has begun and may or may not have reached the store."""

    key: str
    data: bytes
    pairs: frozenset[Pair]
    through: int


class Journal:
    """Appends the groups of one run to the store, and reads them back. Calls must not overlap.

    `start` is the digest of the run's recipe. `root` is the first version with the starting
    policy's weights, or None if it is not known yet.
    """

    def __init__(self, store: ObjectStore, run: str, start: str) -> None:
        self._store = store
        self._run = f"runs/{run}/episodes/"
        self._prefix = f"{self._run}{start[:_START_DIGITS]}/"
        self._start = start
        self.root: int | None = None
        self._segment = 0
        self._through = -1
        # The prompt number and the attempt of each stored finished group. Some groups of settled
        # prompts are missing, because `read` does not read the oldest segments.
        self._held: set[Pair] = set()
        self._unconfirmed: _Unconfirmed | None = None

    def append(self, groups: Sequence[Group], training: Training | None = None) -> None:
        """Write `groups` as the next segment, with the record of the next training step, if any.

        After a StoreError, call this again with the same groups. Raises PreconditionFailed if
        another controller has written a segment with this number.
        """
        self._confirm()
        fresh = [group for group in groups if pair(group) not in self._held]
        if not fresh and training is None:
            return
        through = max([self._through, *(group.prompt.number for group in fresh)])
        header = Header(self._start, self.root or 0, through, training)
        self._unconfirmed = _Unconfirmed(
            f"{self._prefix}{self._segment:08d}{_ENDING}",
            encode(Segment(header, tuple(fresh))),
            frozenset(pair(group) for group in fresh if group.outcome is not Outcome.UNFINISHED),
            through,
        )
        self._confirm()
        if training is not None:
            self._held = {held for held in self._held if held[0] >= training.watermark}

    def _confirm(self) -> frozenset[Pair]:
        """Write the segment in `_unconfirmed` if there is one.

        Return the prompt number and the attempt of each finished group in it.
        """
        if (segment := self._unconfirmed) is None:
            return frozenset()
        try:
            self._store.put(segment.key, segment.data, if_none_match=True)
        except PreconditionFailed as error:
            if self._store.get(segment.key) != segment.data:
                raise PreconditionFailed(
                    f"{segment.key} exists: another grpo job writes this run; "
                    "stop one of them or change run.name"
                ) from error
        self._unconfirmed = None
        self._segment += 1
        self._through = segment.through
        self._held |= segment.pairs
        return segment.pairs

    def read(
        self,
        position: Position | None = None,
        stale: Callable[[Collection[int]], bool] = lambda _: False,
    ) -> Recovered:
        """Return the groups of the prompts that are not settled in `position`.

        `stale` gets the weight versions of a group's tokens, and returns whether the group is too
        old. Damaged segments are logged and skipped.
        """
        self._held = set(self._confirm())
        position = position or Position()
        latest: dict[int, tuple[int, StoredSegment]] = {}
        for segment in self._newest_first(position.watermark):
            self._held.update(segment.finished)
            for number, attempt in segment.pairs:
                known = latest.get(number, (-1, segment))[0]
                if number not in position and attempt > known:
                    latest[number] = attempt, segment
        return _recovered(latest, stale)

    def _newest_first(self, watermark: int) -> Iterator[StoredSegment]:
        """Yield the segments that may hold prompts from `watermark` on, newest first."""
        keys = self._keys()
        self._segment = _number(keys[-1]) + 1 if keys else 0
        self._through = -1
        for key in reversed(keys):
            try:
                segment = StoredSegment(self._store.get(key), key)
            except DataError as error:
                log.warning("%s", error)
                continue
            if self._through < 0:
                self._through, self.root = segment.header.through, segment.header.root
            if segment.header.through < watermark:
                return
            yield segment

    def _keys(self) -> list[str]:
        """Return the keys of this recipe's segments in order, and log how many other ones exist."""
        every = [info.key for info in self._store.list(self._run) if info.key.endswith(_ENDING)]
        own = sorted(key for key in every if key.startswith(self._prefix))
        if others := len(every) - len(own):
            log.warning(
                "%s: %d segments come from another recipe; they are not learned from",
                self._run,
                others,
            )
        return own

    def trainings(self) -> dict[int, Training]:
        """Return the record of each step that trained, in the order of the steps.

        Only the last record of a repeated step counts. The method is slow, because it reads every
        segment.
        """
        valid: dict[int, Training] = {}
        for segment in self._newest_first(-1):
            if (found := segment.header.training) is not None:
                valid.setdefault(found.step, found)
        return dict(sorted(valid.items()))


def _number(key: str) -> int:
    return int(key.rsplit("/", 1)[-1].removesuffix(_ENDING))


def _recovered(
    latest: dict[int, tuple[int, StoredSegment]], stale: Callable[[Collection[int]], bool]
) -> Recovered:
    """Return the groups in `latest`, and leave out the stale and the damaged groups."""
    groups, left = [], {}
    for number, (attempt, segment) in sorted(latest.items()):
        found = number, attempt
        try:
            may_be_stale = segment.outcome(found) in (Outcome.READY, Outcome.UNFINISHED)
            if may_be_stale and stale(segment.sampled_at(found)):
                left[number] = attempt
            else:
                groups.append(_packed(segment.group(found)))
        except DataError as error:
            log.warning("%s", error)
            left[number] = attempt
    return Recovered(tuple(groups), left)


def _packed(group: Group) -> Group:
    """Pack the group's episodes in this thread, to spare the event loop. Return the group."""
    for episode in group.episodes:
        _ = episode.packed
    return group


def latest_attempts(groups: Iterable[Group]) -> list[Group]:
    """Return one group per prompt, in the order of prompt numbers.

    The function keeps the group with the highest attempt. If several groups of a prompt have this
    attempt, it keeps the last of these groups.
    """
    latest: dict[int, Group] = {}
    for group in groups:
        held = latest.get(group.prompt.number)
        if held is None or held.prompt.attempt <= group.prompt.attempt:
            latest[group.prompt.number] = group
    return [latest[number] for number in sorted(latest)]
