"""Says how many updates lie between two weight versions of a run.

A restarted learner resumes from the version in its checkpoint. The versions that the lost learner
published after this checkpoint are abandoned. Version numbers never repeat, so the restarted
learner goes on with new numbers:

    1 -- 2 -- 3 -- 4 -- 5      the lost learner; its checkpoint holds version 3
              |
              +-- 6 -- 7       its successor; version 6 has the weights of version 3

Here Lineage(((1, 3),), first=6) is the lineage of version 7. Version 2 lies 2 updates behind
version 7, and versions 4 and 5 are abandoned.
"""

from collections.abc import Collection
from dataclasses import dataclass

Spans = tuple[tuple[int, int], ...]
"""For each earlier learner, its first version and its last one that is not abandoned."""


@dataclass(frozen=True, slots=True)
class Lineage:
    """The ancestors of a learner's versions.

    Example:
        Lineage(((1, 3),), first=6)  # Version 6 has the weights of version 3.
    """

    spans: Spans = ()
    """The pair (first version, last version that is not abandoned) of each earlier learner."""
    first: int = 0
    """The present learner's first version. It has the weights of the last version in `spans`."""

    @property
    def root(self) -> int:
        """The oldest version of the lineage."""
        return self.spans[0][0] if self.spans else self.first

    def rooted(self, root: int | None) -> "Lineage":
        """Return this lineage, with `root` as the oldest version if the lineage has no spans.

        `root` is the run's first version. Its weights are those of the starting policy, with which
        a learner without a checkpoint begins.
        """
        if self.spans or root is None or root >= self.first:
            return self
        return Lineage(((root, root),), self.first)

    def until(self, version: int) -> Spans:
        """Return `spans` and the present learner's span up to `version`, for a checkpoint."""
        return (*self.spans, (self.first, version))

    def place(self, sampled: int) -> int | None:
        """Return `first` - n for a version that is n updates older than `first`.

        These numbers order the versions of all learners by age. Return None for an abandoned
        version.
        """
        updates = self.behind(sampled, self.first)
        return None if updates is None else self.first - updates

    def behind(self, sampled: int, version: int) -> int | None:
        """Return how many updates lead from version `sampled` to `version`.

        `version` is a version of the present learner. Return None if `sampled` is abandoned.
        """
        if sampled >= self.first:
            return version - sampled
        updates = version - self.first
        for first, last in reversed(self.spans):
            if sampled > last:
                return None
            if sampled >= first:
                return updates + last - sampled
            updates += last - first
        return None

    def stale(self, sampled: Collection[int], version: int, bound: int) -> bool:
        """Return whether a version in `sampled` is abandoned, or too old for `version`.

        A version is too old if more than `bound` updates lead from it to `version`.
        """
        behind = (self.behind(one, version) for one in sampled)
        return any(updates is None or updates > bound for updates in behind)
