"""Scoring: a rollout becomes a group with rewards and advantages.

Failed episodes (StopReason.ERROR) are data: left out of the group's statistics and of training, or given a fixed reward, by configuration.
Axes: G episodes of a group.
"""

import threading

from awares.advantage import advantages
from awares.episode import Episode, StopReason
from awares.labels import normalise
from awares.reward import Reward, Similarity, rewards
from awares.sample import Sample
from awares_platform.config.grpo import GrpoConfig
from awares_platform.config.method import MethodConfig
from awares_platform.grpo.group import Group, Member, Outcome, Prompt, Rollout
from awares_platform.method.reward import reward_settings


class Scoring:
    """Callable: (prompt, rollout) -> group. Thread-safe: one call of `similarity` at a time."""

    def __init__(self, similarity: Similarity, method: MethodConfig, settings: GrpoConfig) -> None:
        self._similarity = similarity
        self._lock = threading.Lock()
        self._settings = settings
        self._weights = reward_settings(method)

    def __call__(self, prompt: Prompt, rollout: Rollout) -> Group:
        """Judges the episodes of one prompt together. Raises DataError for a sample without a label."""
        episodes = rollout.episodes
        earned_G = [
            self._penalised(*pair)
            for pair in zip(episodes, self._rewards(prompt.sample, episodes), strict=True)
        ]
        counted = [index for index, episode in enumerate(episodes) if self._counts(episode)]
        values = advantages([earned_G[index].total for index in counted], self._settings.std_eps)
        advantage_of = dict(zip(counted, values, strict=True))
        members = tuple(
            Member(
                episode,
                earned.total,
                earned.answer,
                earned.cost,
                correct(episode, prompt.sample),
                advantage_of.get(index),
            )
            for index, (episode, earned) in enumerate(zip(episodes, earned_G, strict=True))
        )
        return Group(prompt, members, self._outcome(members), rollout.ended - rollout.started)

    def _rewards(self, sample: Sample, episodes: tuple[Episode, ...]) -> list[Reward]:
        with self._lock:
            return rewards(episodes, [sample] * len(episodes), self._similarity, self._weights)

    def _penalised(self, episode: Episode, earned: Reward) -> Reward:
        if episode.stop is StopReason.ERROR and self._settings.errors == "penalise":
            return Reward(self._settings.error_reward, 0.0, -self._settings.error_reward)
        return earned

    def _counts(self, episode: Episode) -> bool:
        return episode.stop is not StopReason.ERROR or self._settings.errors == "penalise"

    def _outcome(self, members: tuple[Member, ...]) -> Outcome:
        counted = [member for member in members if member.advantage is not None]
        if len(counted) < 2 or not any(member.episode.turns for member in counted):
            return Outcome.FAILED
        if self._settings.drop_uniform_groups and len({member.reward for member in counted}) == 1:
            return Outcome.UNIFORM
        return Outcome.READY


def correct(episode: Episode, sample: Sample) -> bool:
    """Whether the answer equals the truth after normalising: the running figure accuracy/train, not a benchmark's score."""
    return episode.answer is not None and normalise(episode.answer) == normalise(sample.answer)
