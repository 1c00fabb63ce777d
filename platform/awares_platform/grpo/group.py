"""What travels between controller, rollout actors, buffer and learner.

Axes: G episodes of a group, P prompts (groups) of a batch.
"""

from dataclasses import dataclass
from enum import StrEnum

from awares.episode import Episode, StopReason
from awares.sample import Sample


class Outcome(StrEnum):
    """What a finished group is good for."""

    READY = "ready"  # has advantages, waits for the learner
    UNIFORM = "uniform"  # all rewards equal and the configuration leaves such groups out
    FAILED = "failed"  # fewer than two usable episodes


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question at its place in the run's order. `attempt` counts groups of it that became stale before they were used.

    Example:
        Prompt(17, 0, Sample("mini/train/3", "9f2c...", "colour top left?", "red"))
    """

    number: int
    epoch: int
    sample: Sample
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class Rollout:
    """The G episodes that an actor brings back for one prompt; `started` and `ended` in seconds of the actor's wall clock."""

    episodes: tuple[Episode, ...]
    started: float
    ended: float


@dataclass(frozen=True, slots=True)
class Member:
    """An episode with its judgement. `advantage` None: left out of the group's statistics and of training.

    Example:
        Member(episode, reward=9.75, answer=10.0, cost=0.25, correct=True, advantage=1.0)
    """

    episode: Episode
    reward: float
    answer: float
    cost: float
    correct: bool
    advantage: float | None

    @property
    def failed(self) -> bool:
        return self.episode.stop is StopReason.ERROR


@dataclass(frozen=True, slots=True)
class Group:
    """A finished group of one prompt; `seconds` is its wall time in the actor."""

    prompt: Prompt
    members: tuple[Member, ...]
    outcome: Outcome
    seconds: float = 0.0

    @property
    def oldest(self) -> int | None:
        """The weight version of the oldest sampled token; None when nothing was sampled."""
        return min(
            (
                version
                for member in self.members
                for turn in member.episode.turns
                for version in turn.versions
            ),
            default=None,
        )


@dataclass(frozen=True, slots=True)
class Position:
    """Which prompts are settled (trained on, or found useless): all below `watermark`, and those of `beyond`.

    Example:
        Position(32, (35, 36))
    """

    watermark: int = 0
    beyond: tuple[int, ...] = ()

    def settle(self, number: int) -> "Position":
        """The position after prompt `number` is settled, too."""
        numbers = {*self.beyond, number}
        watermark = self.watermark
        while watermark in numbers:
            numbers.remove(watermark)
            watermark += 1
        return Position(watermark, tuple(sorted(n for n in numbers if n >= watermark)))

    def __contains__(self, number: int) -> bool:
        return number < self.watermark or number in self.beyond


@dataclass(frozen=True, slots=True)
class Batch:
    """The groups of one learner step, and the position once they are trained on."""

    step: int
    groups: tuple[Group, ...]
    position: Position
