"""Turns the episodes of one prompt into a group with rewards and advantages.

A failed episode has StopReason.ERROR. The configuration decides whether failed episodes get a fixed
reward or are left out of the group's statistics and of training.

Axes: G episodes of a group.
"""

import threading
from dataclasses import replace

from awares.advantage import advantages
from awares.episode import Episode, StopReason
from awares.labels import normalise
from awares.reward import Reward, RewardValue
from awares.sample import Sample
from awares_platform.config.grpo import GrpoConfig
from awares_platform.grpo.group import Group, GroupRollout, Member, Outcome, Prompt


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
        episodes = rollout.episodes
        if rollout.fault:
            [unplayed] = episodes
            member = Member(unplayed, RewardValue(0.0, {}), False, None)
            return Group(prompt, (member,), Outcome.UNPLAYABLE)
        values_G = self._values(prompt.sample, episodes)
        pairs = zip(episodes, values_G, strict=True)
        members = tuple(
            Member(episode, value, correct(episode, prompt.sample), None)
            for episode, value in pairs
        )
        counted = [index for index, episode in enumerate(episodes) if self._counts(episode)]
        seconds = rollout.ended - rollout.started
        if any(members[index].nonfinite for index in counted):
            return Group(prompt, members, Outcome.NONFINITE, seconds)
        totals = [values_G[index].total for index in counted]
        scale, eps = self._settings.advantage_scale, self._settings.std_eps
        advantage_of = dict(zip(counted, advantages(totals, eps, scale), strict=True))
        members = tuple(
            replace(member, advantage=advantage_of.get(index))
            for index, member in enumerate(members)
        )
        return Group(prompt, members, self._outcome(members), seconds)

    def _values(self, sample: Sample, episodes: tuple[Episode, ...]) -> list[RewardValue]:
        with self._lock:
            values_G = self._reward(episodes, [sample] * len(episodes))
        if self._settings.errors == "exclude":
            return values_G
        penalty = RewardValue(self._settings.error_reward, {})
        pairs = zip(episodes, values_G, strict=True)
        return [penalty if episode.stop is StopReason.ERROR else value for episode, value in pairs]

    def _counts(self, episode: Episode) -> bool:
        return episode.stop is not StopReason.ERROR or self._settings.errors == "penalise"

    def _outcome(self, members: tuple[Member, ...]) -> Outcome:
        counted = [member for member in members if member.advantage is not None]
        if len(counted) < 2 or not any(member.episode.turns for member in counted):
            return Outcome.FAILED
        totals = {member.reward.total for member in counted}
        if self._settings.drop_uniform_groups and len(totals) == 1:
            return Outcome.UNIFORM
        return Outcome.READY


def correct(episode: Episode, sample: Sample) -> bool:
    """Return whether the answer equals the true answer after both are normalised.

    The metric accuracy/train averages this value. The evaluate job scores answers by the rules of a
    benchmark instead.
    """
    return episode.answer is not None and normalise(episode.answer) == normalise(sample.answer)
