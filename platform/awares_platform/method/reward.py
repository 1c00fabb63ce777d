"""The reward as the configuration describes it."""

from dataclasses import fields

from awares.reward import RewardSettings
from awares_platform.config.method import MethodConfig


def reward_settings(method: MethodConfig) -> RewardSettings:
    """The reward's weights as configured."""
    return RewardSettings(
        **{weight.name: getattr(method, weight.name) for weight in fields(RewardSettings)}
    )
