"""Defines the data that the controller, rollout actors, buffer and learner exchange.

    Prompt --actor--> GroupRollout --scoring--> Group of Members --buffer--> StepBatch --> learner
      ^                    |
      +---- unfinished ----+  the actor was drained; another actor continues the episodes

Axes: G episodes of a group.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from awares.episode import Episode, StopReason
from awares.reward import RewardValue
from awares.sample import Sample
from awares_platform.engine.usage import EngineUsage


class Outcome(StrEnum):
    """Says whether the learner can use a group and, if not, why."""

    # The group has advantages and waits for the learner.
    READY = "ready"
    # All rewards are equal, and the configuration excludes such groups from training.
    UNIFORM = "uniform"
    # Fewer than two episodes are usable, or no usable episode has a turn.
    FAILED = "failed"
    # A reward or the logprob of a sampled token is NaN or infinite.
    NONFINITE = "nonfinite"
    # The image cannot be read, or the question does not fit the engine's context. No episode ran.
    UNPLAYABLE = "unplayable"
    # The group's actor was drained before all episodes ended. Another actor continues the group.
    UNFINISHED = "unfinished"


@dataclass(frozen=True, slots=True)
class Prompt:
    """A sample at one place in the run's order of prompts.

    Example:
        Prompt(17, 0, Sample("mini/train/3", "9f2c...", "colour top left?", "red"))
    """

    number: int
    """The place in the run's order of prompts."""
    epoch: int
    """The number of complete passes over all samples before this place."""
    sample: Sample
    attempt: int = 0
    """The number of earlier groups of this prompt that were dropped as stale or damaged."""


@dataclass(frozen=True, slots=True)
class GroupRollout:
    """The G episodes that an actor returns for one prompt.

    Example:
        GroupRollout((episode, sibling), started=1763800000.0, ended=1763800002.5)
    """

    episodes: tuple[Episode, ...]
    started: float
    """The Unix time in seconds at which the rollout began, by the actor's clock."""
    ended: float
    """The Unix time in seconds at which the rollout ended, by the actor's clock."""
    fault: str = ""
    """Why no episode can run because of the data, or "".

    With a fault, `episodes` holds one episode without turns.
    """
    usage: EngineUsage | None = None
    """The usage of the actor's engine until `ended`, or None if unknown."""

    @property
    def unfinished(self) -> bool:
        """Whether the actor was drained before all episodes ended."""
        return any(episode.stop is StopReason.UNFINISHED for episode in self.episodes)

    @property
    def sampled(self) -> bool:
        """Whether the episodes have a sampled token."""
        return any(episode.packed.tokens for episode in self.episodes)


@dataclass(frozen=True, slots=True)
class Member:
    """An episode with its reward and advantage.

    If `advantage` is None, the episode is left out of the group's statistics and of training.

    Example:
        Member(episode, RewardValue(9.75, {"answer": 10.0, "cost": 0.25}), True, 1.0)
    """

    episode: Episode
    reward: RewardValue
    correct: bool
    advantage: float | None

    @property
    def nonfinite(self) -> str:
        """A text about the reward or logprob that is not finite, or "" if all are finite."""
        if not math.isfinite(self.reward.total):
            return f"the reward of {self.episode.sample_id} is {self.reward.total}"
        if self.episode.packed.finite:
            return ""
        logprobs = (value for turn in self.episode.turns for value in turn.logprobs)
        wrong = next((value for value in logprobs if not math.isfinite(value)), None)
        if wrong is None:
            return ""
        return f"a token of {self.episode.sample_id} was sampled with the logprob {wrong}"

    @property
    def failed(self) -> bool:
        """Whether the episode ended because the engine, the image or the environment failed."""
        return self.episode.stop is StopReason.ERROR


@dataclass(frozen=True, slots=True)
class Group:
    """A group of one prompt. `seconds` is the group's wall time in the actor.

    The members of an unfinished group have no rewards and no advantages.

    Example:
        Group(prompt, (member, sibling), Outcome.READY, seconds=2.5)
    """

    prompt: Prompt
    members: tuple[Member, ...]
    outcome: Outcome
    seconds: float = 0.0

    @classmethod
    def unfinished(cls, prompt: Prompt, rollout: GroupRollout) -> "Group":
        """Return the group of an unfinished rollout, in which no episode has a reward yet."""
        members = (
            Member(episode, RewardValue(0.0, {}), False, None) for episode in rollout.episodes
        )
        return cls(prompt, tuple(members), Outcome.UNFINISHED, rollout.ended - rollout.started)

    @property
    def episodes(self) -> tuple[Episode, ...]:
        """The episodes of all members."""
        return tuple(member.episode for member in self.members)

    @property
    def fault(self) -> str:
        """The reason why the prompt cannot be played, or "" if it can be played."""
        if self.outcome is not Outcome.UNPLAYABLE:
            return ""
        return self.members[0].episode.error

    @property
    def nonfinite(self) -> str:
        """A text about the first reward or logprob that is not finite, or "" if all are finite."""
        return next((found for member in self.members if (found := member.nonfinite)), "")

    @property
    def oldest(self) -> int | None:
        """The lowest weight version among the sampled tokens, or None without sampled tokens."""
        return min(self.versions, default=None)

    @property
    def versions(self) -> frozenset[int]:
        """The weight versions of the sampled tokens."""
        return sampled_versions(self.members)


def sampled_versions(members: Iterable[Member]) -> frozenset[int]:
    """Return the weight versions of all tokens that the members have sampled."""
    return frozenset(version for one in members for version, _ in one.episode.packed.tokens)


@dataclass(frozen=True, slots=True)
class Position:
    """The numbers of the settled prompts.

    A prompt is settled once the learner gets its group, or once the group has finished with another
    outcome than READY.

    Example:
        Position(32, (35, 36))
    """

    watermark: int = 0
    """All prompts with smaller numbers are settled."""
    beyond: tuple[int, ...] = ()
    """The settled prompts with larger numbers."""

    def __contains__(self, number: int) -> bool:
        return number < self.watermark or number in self.beyond


@dataclass(frozen=True, slots=True)
class StepBatch:
    """The groups of one learner step, and the run's position after the step.

    Example:
        StepBatch(step=12, groups=(group, other), position=Position(26))
    """

    step: int
    groups: tuple[Group, ...]
    position: Position
