"""Keeps the groups that wait for the learner, and the numbers of the settled prompts (`Position`).

Checking whether a batch is ready takes the same time for any number of groups.
"""

from awares_platform.grpo.group import Group, Position


class ReadyGroups:
    """The groups that wait for the learner, ordered by the version of their oldest token.

    All versions here are numbers that `Lineage.place` returns.

    Example:
        ready = ReadyGroups()
        ready.add(group, oldest=5)
        ready.first(32, since=4)
    """

    def __init__(self) -> None:
        # The groups by the version of their oldest token, then by their prompt's number. Few
        # versions are in use at a time, because the staleness is bounded.
        self._by_age: dict[int, dict[int, Group]] = {}
        # The version of the oldest token of each group, by the prompt's number.
        self._oldest: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._oldest)

    @property
    def numbers(self) -> set[int]:
        """The numbers of the groups' prompts."""
        return set(self._oldest)

    def add(self, group: Group, oldest: int) -> None:
        """Add a group whose oldest token is from the version `oldest`."""
        self._oldest[group.prompt.number] = oldest
        self._by_age.setdefault(oldest, {})[group.prompt.number] = group

    def remove(self, group: Group) -> None:
        """Remove a group that was added."""
        oldest = self._oldest.pop(group.prompt.number)
        del self._by_age[oldest][group.prompt.number]
        if not self._by_age[oldest]:
            del self._by_age[oldest]

    def first(self, count: int, since: int) -> list[Group]:
        """Return up to `count` groups, those with the oldest tokens and lowest numbers first.

        Leave out the groups whose oldest token is from a version below `since`.
        """
        found: list[Group] = []
        for oldest in sorted(version for version in self._by_age if version >= since):
            held = self._by_age[oldest]
            found += [held[number] for number in sorted(held)[: count - len(found)]]
        return found

    def count(self, since: int) -> int:
        """Return the number of groups that `first` can return."""
        return sum(len(held) for oldest, held in self._by_age.items() if oldest >= since)

    def drop(self, before: int) -> list[Group]:
        """Remove and return the groups whose oldest token is from a version below `before`."""
        stale = [
            group
            for oldest, held in self._by_age.items()
            if oldest < before
            for group in held.values()
        ]
        for group in stale:
            self.remove(group)
        return stale


class Settled:
    """The numbers of the settled prompts, as a mutable Position.

    A change to an immutable Position would copy all numbers above the watermark.
    """

    def __init__(self, start: Position) -> None:
        self._watermark = start.watermark
        self._beyond = set(start.beyond)

    def __contains__(self, number: int) -> bool:
        return number < self._watermark or number in self._beyond

    def add(self, number: int) -> None:
        """Record that the prompt `number` is settled."""
        if number not in self:
            self._beyond.add(number)
        while self._watermark in self._beyond:
            self._beyond.remove(self._watermark)
            self._watermark += 1

    def position(self) -> Position:
        """Return the present position."""
        return Position(self._watermark, tuple(sorted(self._beyond)))
