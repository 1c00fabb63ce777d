"""Turns the episodes of one prompt into a group with rewards and advantages.

The configuration decides whether failed episodes get a fixed reward or are left out.

Axes: G episodes of a group.
"""

import threading
from collections.abc import Sequence

from awares.advantage import advantages
from awares.episode import Episode, StopReason
from awares.evaluation.scorers import exact
from awares.reward import Reward, RewardValue
from awares.sample import Sample
from awares_platform.config.grpo import GrpoConfig
from awares_platform.grpo.group import Group, GroupRollout, Member, Outcome, Prompt

_UNFINISHED = "an unfinished episode has no reward"


class Scoring:
    """A callable that turns a prompt and its rollout into a scored group.

    Several threads may call a Scoring at once. A lock lets only one thread at a time call the
    reward.
    """

    def __init__(self, reward: Reward, settings: GrpoConfig) -> None:
        self._reward = reward
        self._lock = threading.Lock()
        self._settings = settings

    def __call__(self, prompt: Prompt, rollout: GroupRollout) -> Group:
        """Score the episodes of one prompt together. Raises whatever error the reward raises.

        For a prompt that cannot be played, the method does not call the reward.
        """
        if rollout.fault:
            return unplayable(prompt, rollout)
        with self._lock:
            values_G = values(self._reward, prompt.sample, rollout.episodes)
        return grouped(prompt, rollout, values_G, self._settings)


def values(reward: Reward, sample: Sample, episodes: Sequence[Episode]) -> list[RewardValue]:
    """Return the reward of each of the G episodes of `sample`."""
    assert all(one.stop is not StopReason.UNFINISHED for one in episodes), _UNFINISHED
    return reward(episodes, [sample] * len(episodes))


def unplayable(prompt: Prompt, rollout: GroupRollout) -> Group:
    """Return the group of a prompt that cannot be played. The group has no rewards."""
    [unplayed] = rollout.episodes
    return Group(prompt, (Member(unplayed, RewardValue(0.0, {}), False, None),), Outcome.UNPLAYABLE)


def grouped(
    prompt: Prompt, rollout: GroupRollout, values_G: Sequence[RewardValue], settings: GrpoConfig
) -> Group:
    """Return the group of `rollout`, whose episodes have the rewards `values_G`."""
    assert not rollout.unfinished, _UNFINISHED
    episodes = rollout.episodes
    if settings.errors == "penalise":
        values_G = _penalised(episodes, values_G, settings.error_reward)
    members = tuple(
        Member(episode, value, correct(episode, prompt.sample), None)
        for episode, value in zip(episodes, values_G, strict=True)
    )
    counted = [index for index, episode in enumerate(episodes) if _counts(episode, settings)]
    seconds = rollout.ended - rollout.started
    if any(members[index].nonfinite for index in counted):
        return Group(prompt, members, Outcome.NONFINITE, seconds)
    totals = [values_G[index].total for index in counted]
    scale, eps = settings.advantage_scale, settings.std_eps
    advantage_of = dict(zip(counted, advantages(totals, eps, scale), strict=True))
    members = tuple(
        Member(member.episode, member.reward, member.correct, advantage_of.get(index))
        for index, member in enumerate(members)
    )
    return Group(prompt, members, _outcome(members, settings), seconds)


def _penalised(
    episodes: Sequence[Episode], values_G: Sequence[RewardValue], error_reward: float
) -> list[RewardValue]:
    penalty = RewardValue(error_reward, {})
    pairs = zip(episodes, values_G, strict=True)
    return [penalty if episode.stop is StopReason.ERROR else value for episode, value in pairs]


def _counts(episode: Episode, settings: GrpoConfig) -> bool:
    return episode.stop is not StopReason.ERROR or settings.errors == "penalise"


def _outcome(members: Sequence[Member], settings: GrpoConfig) -> Outcome:
    counted = [member for member in members if member.advantage is not None]
    if len(counted) < 2 or not any(member.episode.packed.count for member in counted):
        return Outcome.FAILED
    totals = {member.reward.total for member in counted}
    if settings.drop_uniform_groups and len(totals) == 1:
        return Outcome.UNIFORM
    return Outcome.READY


def correct(episode: Episode, sample: Sample) -> bool:
    """Return whether the answer equals an accepted answer after both are normalised.

    The metric accuracy/train averages this value. The evaluate job scores answers by the rules of a
    benchmark instead.
    """
    return episode.answer is not None and bool(exact(episode.answer, sample.answers))
