"""Builds the reward that the configuration names, and checks its values."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from awares.episode import Episode
from awares.errors import ConfigError
from awares.reward import Reward, RewardValue
from awares.sample import Sample
from awares_platform.config.method import MethodConfig
from awares_platform.method import seams

KEY = "method.reward"


@dataclass(frozen=True, slots=True)
class CheckedReward:
    """A reward whose values are checked, because a single NaN would spoil the policy.

    `reference` is the name of the reward in the configuration, for the error messages.

    Example:
        CheckedReward("my_rewards:Anls", Anls())
    """

    reference: str
    reward: Reward

    def __call__(self, episodes: Sequence[Episode], samples: Sequence[Sample]) -> list[RewardValue]:
        """Return one value per episode.

        Raises ConfigError if the number of values is wrong, or if a total is not finite.
        """
        values = self.reward(episodes, samples)
        if len(values) != len(episodes):
            raise ConfigError(
                f"{KEY} = {self.reference!r} returned {len(values)} values for "
                f"{len(episodes)} episodes; return one for each"
            )
        for episode, value in zip(episodes, values, strict=True):
            if not math.isfinite(value.total):
                raise ConfigError(
                    f"{KEY} = {self.reference!r} returned {value.total} for an episode of "
                    f"{episode.sample_id}; return a finite total"
                )
        return values


def check_reward(method: MethodConfig) -> None:
    """Import the configured reward and check its settings, without building the reward.

    Raises ConfigError if the reward cannot be imported or does not take its settings.
    """
    seams.check(method.reward, KEY, _offered(method), method.reward_settings)


def build_reward(method: MethodConfig) -> CheckedReward:
    """Build the configured reward. Raises ConfigError if the reward cannot be built."""
    part = seams.build(method.reward, Reward, KEY, _offered(method), method.reward_settings)
    return CheckedReward(method.reward, part)


def _offered(method: MethodConfig) -> dict[str, object]:
    return method.model_dump(exclude={"reward", "reward_settings"})
