"""Validates a version on held-out questions, and chooses the best of the validated versions.

    played questions --measured--> Validated --better--> the best version

The leader has the highest mean of grpo.validation.metric. A version ties with the leader if its
mean is at most one standard error lower. The tied version with the fewest visual tokens wins, or
the newest one if their tokens are equal.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from awares.episode import Episode, StopReason
from awares.sample import Sample
from awares_platform.config.validation import ValidationConfig
from awares_platform.grpo.group import Group, GroupRollout, Prompt
from awares_platform.method.play import Played

Score = Callable[[Prompt, GroupRollout], Awaitable[Group]]
"""Returns the group of a rollout with its rewards, as Controller's `score` does."""

AnswerScore = Callable[[str | None, Sample], float]
"""Returns the score of an answer to a sample."""


@dataclass(frozen=True, slots=True)
class DueVersion:
    """A version that must be validated. It has the weights after `step` steps.

    Example:
        DueVersion(step=20, version=21)
    """

    step: int
    version: int


@dataclass(frozen=True, slots=True)
class Validated:
    """The metrics of one version on the held-out questions.

    Example:
        Validated(20, 21, 9.7, accuracy=0.94, rtr_token=0.4, call_rate=0.4, values={"q": 9.8})
    """

    step: int
    version: int
    reward: float
    accuracy: float
    rtr_token: float
    call_rate: float
    values: Mapping[str, float]
    """Maps the id of each answered question to its value of grpo.validation.metric."""
    train_reward: float | None = None
    """The mean reward of the training steps since the previous validated version, or None."""
    decline: float = 0.0
    """The result of the function `declined`."""

    def metrics(self) -> dict[str, float]:
        """Return the metrics by the names that metrics.jsonl uses."""
        return {
            "validation/reward": self.reward,
            "validation/accuracy": self.accuracy,
            "validation/rtr_token": self.rtr_token,
            "validation/call_rate": self.call_rate,
            "validation/decline": self.decline,
            "validation/questions": float(len(self.values)),
            "validation/version": float(self.version),
        }


async def measured(
    due: DueVersion,
    played: Sequence[Played],
    score: Score,
    judge: AnswerScore,
    settings: ValidationConfig,
) -> Validated | None:
    """Return the metrics of a version, or None if no question has a usable episode.

    `score` computes rewards, and `judge` scores answers. An episode is not usable if it failed, or
    if its reward is not finite. Raises the reward's errors.
    """
    found = [(one.sample, one.episode) for one in played if one.episode is not None]
    usable = [pair for pair in found if pair[1].stop is not StopReason.ERROR]
    rewards = await asyncio.gather(*(_reward(score, *pair) for pair in usable))
    rows = [(*pair, reward) for pair, reward in zip(usable, rewards, strict=True)]
    rows = [row for row in rows if math.isfinite(row[2])]
    if not rows:
        return None
    reward = {sample.sample_id: value for sample, _, value in rows}
    accuracy = {sample.sample_id: judge(episode.answer, sample) for sample, episode, _ in rows}
    return Validated(
        due.step,
        due.version,
        reward=fmean(reward.values()),
        accuracy=fmean(accuracy.values()),
        rtr_token=fmean(episode.rtr_token for _, episode, _ in rows),
        call_rate=fmean(bool(episode.crops) for _, episode, _ in rows),
        values=reward if settings.metric == "reward" else accuracy,
    )


async def _reward(score: Score, sample: Sample, episode: Episode) -> float:
    rollout = GroupRollout((episode,), started=0.0, ended=0.0)
    [member] = (await score(Prompt(0, 0, sample), rollout)).members
    return member.reward.total


def better(best: Validated | None, new: Validated, earlier: Sequence[Validated]) -> Validated:
    """Return `new` if it replaces `best`, the best version so far. Otherwise return `best`.

    `earlier` are the other validated versions and the starting policy. The module's docstring has
    the rule.
    """
    if best is None:
        return new
    candidates = [one for one in earlier if one.step]
    top = max([*candidates, best, new], key=_mean)
    if not tied(new, top):
        return best
    if tied(best, top) and new.rtr_token > best.rtr_token:
        return best
    return new


def tied(one: Validated, top: Validated) -> bool:
    """Return whether the mean lead of `top` over `one` is at most one standard error.

    Only questions that both have answered count. If there are fewer than two such questions,
    compare the overall means.
    """
    both = [top.values[key] - one.values[key] for key in top.values if key in one.values]
    if len(both) < 2:
        return _mean(one) >= _mean(top)
    return fmean(both) <= stdev(both) / math.sqrt(len(both))


def declined(new: Validated, earlier: Sequence[Validated]) -> float:
    """Return by how much the accuracy has fallen while the training reward has risen, or 0.

    `new` is compared with the most accurate version in `earlier` that has a lower training reward.
    """
    reward = new.train_reward
    falls = [
        one.accuracy - new.accuracy
        for one in earlier
        if reward is not None and one.train_reward is not None and one.train_reward < reward
    ]
    return max(0.0, *falls) if falls else 0.0


def _mean(one: Validated) -> float:
    return fmean(one.values.values())
