"""Keeps finished groups for the learner, and bounds the groups' staleness.

    issue() -> in flight -> add() -> ready -> take(version) -> learner
       ^          |                    |
       +--reissue-+        stale ------+
       +-----------------+ unfinished: the next actor continues the episodes

Let v be the version of the weights that the next batch updates, and let bound be
grpo.staleness_bound. A group is stale if one of its tokens was sampled more than `bound` updates
before v. A group is also stale if it has a token of a version that a restarted learner has
abandoned (see lineage.py).

The capacity gate limits how many groups are ready or in flight, so that few groups become stale.
Let a be the version of an actor's weights. The actor may start a group only while the groups that
are ready or in flight fill fewer than

    a - v + bound + 1

batches. A group can still become stale if its actor loads new weights slowly. The buffer then drops
and counts the group, and issues the group's prompt again.
"""

import heapq
from collections.abc import Iterable, Mapping

from awares.episode import Episode
from awares_platform.grpo.group import Group, Outcome, Position, Prompt, StepBatch
from awares_platform.grpo.lineage import Lineage
from awares_platform.grpo.prompts import Prompts
from awares_platform.grpo.ready import ReadyGroups, Settled


class EpisodeBuffer:
    """Holds the groups of one run. The buffer has no lock: the controller calls it from one thread.

    Every prompt number is in exactly one state: not issued, waiting to be issued again, in flight,
    ready, or settled. A prompt is settled if the learner has taken its group or cannot use it.
    """

    def __init__(self, prompts: Prompts, groups_per_step: int, bound: int) -> None:
        self._prompts = prompts
        self._groups_per_step = groups_per_step
        self._bound = bound
        # The prompts that must be issued again, as a heap of (prompt number, attempt).
        self._again: list[tuple[int, int]] = []
        self._next = 0
        self._in_flight: dict[int, Prompt] = {}
        # The unfinished groups of prompts that are waiting or in flight, by the prompt's number.
        self._begun: dict[int, Group] = {}
        self._ready = ReadyGroups()
        self._settled = Settled(Position())
        self._floor = 0
        self._version = 0
        self.lineage = Lineage()
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._ready)

    @property
    def position(self) -> Position:
        """The numbers of the settled prompts."""
        return self._settled.position()

    @property
    def samples(self) -> int:
        """The number of samples from which the prompts are made."""
        return len(self._prompts)

    @property
    def in_flight(self) -> int:
        """The number of groups that actors are rolling out."""
        return len(self._in_flight)

    def restore(
        self,
        position: Position,
        groups: Iterable[Group],
        lineage: Lineage,
        stale: Mapping[int, int] | None = None,
    ) -> None:
        """Fill the buffer with stored groups after the learner has started or restarted.

        - `position` holds the settled prompts (see the class Position).
        - `groups` holds the stored groups.
        - `lineage` is the lineage of the learner's versions.
        - `stale` maps a prompt's number to the attempt whose group is stale or damaged.

        After this call, `issue` first returns the prompts that were issued but have no usable
        group.
        """
        self._settled, self._ready = Settled(position), ReadyGroups()
        self.lineage = lineage
        self._floor = self._version = lineage.first
        attempts, self._again = dict(self._again), []
        self._begun = {one: self._begun[one] for one in self._in_flight if one in self._begun}
        for group in groups:
            number = group.prompt.number
            if number not in self._settled and number not in self._in_flight:
                self._settle(group)
        for number, attempt in (stale or {}).items():
            self._issue_again(number, attempt + 1)
        for number, attempt in self._again:
            attempts[number] = max(attempt, attempts.get(number, 0))
        known = self._in_flight.keys() | self._ready.numbers
        settled = self.position
        last = max((*known, *attempts, *settled.beyond, self._next - 1), default=-1)
        self._next = max(settled.watermark, last + 1)
        self._again = [
            (number, attempts.get(number, 0))
            for number in range(settled.watermark, self._next)
            if number not in known and number not in self._settled
        ]
        heapq.heapify(self._again)

    def room(self, loaded: int) -> int:
        """Return how many groups an actor may start now if its weights have version `loaded`.

        The newer the actor's weights are, the more groups may be ready or in flight.
        """
        if loaded < self._floor:
            return 0
        ahead = loaded - self._version + self._bound + 1
        return max(0, ahead * self._groups_per_step - len(self._ready) - len(self._in_flight))

    def issue(self) -> Prompt:
        """Return the next prompt to roll out.

        Prompts that must be issued again come first, in the order of their numbers.
        """
        if self._again:
            number, attempt = heapq.heappop(self._again)
        else:
            number, attempt = self._next, 0
            self._next += 1
        first = self._prompts[number]
        prompt = Prompt(number, first.epoch, first.sample, attempt)
        self._in_flight[number] = prompt
        return prompt

    def reissue(self, prompt: Prompt) -> None:
        """Queue `prompt` again. Call this if the rollout of the prompt has failed or never began.

        A prompt that is not in flight is ignored.
        """
        if self._in_flight.get(prompt.number) == prompt:
            del self._in_flight[prompt.number]
            heapq.heappush(self._again, (prompt.number, prompt.attempt))

    @property
    def begun_groups(self) -> int:
        """The number of unfinished groups that wait for an actor."""
        return len(self._begun.keys() - self._in_flight.keys())

    def _wait(self, group: Group) -> None:
        heapq.heappush(self._again, (group.prompt.number, group.prompt.attempt))
        self._begun[group.prompt.number] = group

    def begun(self, prompt: Prompt) -> tuple[Episode, ...]:
        """Return the episodes that a drained actor has begun for `prompt`.

        The next actor continues them. The result is empty if there are none, or if they would be
        too stale for the next batch.
        """
        group = self._begun.get(prompt.number)
        if group is None or group.prompt.attempt != prompt.attempt:
            return ()
        stale = self.lineage.stale(group.versions, self._version, self._bound)
        return () if stale else group.episodes

    def add(self, group: Group) -> bool:
        """Add a group, and return True. If its prompt is not in flight, only return False.

        If the group is unfinished, its prompt is queued again. The next actor of the prompt gets
        the group's episodes (see `begun`).
        """
        if self._in_flight.get(group.prompt.number) != group.prompt:
            return False
        del self._in_flight[group.prompt.number]
        self._begun.pop(group.prompt.number, None)
        self._settle(group)
        return True

    def _settle(self, group: Group) -> None:
        if group.outcome is Outcome.UNFINISHED:
            self._wait(group)
            return
        if group.outcome is not Outcome.READY:
            self._settled.add(group.prompt.number)
            return
        places = [self.lineage.place(version) for version in group.versions]
        kept = [place for place in places if place is not None]
        if len(kept) == len(places):
            self._ready.add(group, min(kept))
        else:
            self._issue_again(group.prompt.number, group.prompt.attempt + 1)

    def full(self, version: int) -> bool:
        """Return whether a batch that updates `version` is ready.

        The method first drops the groups that are too stale for this batch.
        """
        self._version = version
        self._drop_stale(version)
        return len(self._ready) >= self._groups_per_step

    def take(self, step: int, version: int) -> StepBatch:
        """Remove the groups with the oldest tokens, and return them as a batch.

        The step `step` trains on the batch and updates the weights of `version`. Before this call,
        `full(version)` must be true.
        """
        assert self.full(version), (
            f"step {step} has {len(self._ready)} of {self._groups_per_step} groups"
        )
        first = self.upcoming(version)
        for group in first:
            self._ready.remove(group)
            self._settled.add(group.prompt.number)
        # From now on, `room` uses the version that the next batch updates.
        self._version = version + 1
        return StepBatch(step, tuple(first), self.position)

    def upcoming(self, version: int) -> list[Group]:
        """Return the groups that `take` would return now for `version`, without removing them.

        The list is shorter than a batch if fewer groups are ready and fresh enough.
        """
        return self._ready.first(self._groups_per_step, since=version - self._bound)

    def upcoming_full(self, version: int) -> bool:
        """Return whether `upcoming` would return a whole batch, without making its list."""
        return self._ready.count(since=version - self._bound) >= self._groups_per_step

    def _drop_stale(self, version: int) -> None:
        for group in self._ready.drop(before=version - self._bound):
            self._issue_again(group.prompt.number, group.prompt.attempt + 1)

    def _issue_again(self, number: int, attempt: int) -> None:
        heapq.heappush(self._again, (number, attempt))
        self.dropped += 1
