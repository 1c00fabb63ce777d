"""Builds the model family from the section [policy]."""

from awares.family import ModelFamily
from awares_platform.config.policy import PolicyConfig
from awares_platform.method.seams import build


def model_family(policy: PolicyConfig) -> ModelFamily:
    """Build the model family that policy.family names.

    Raises ConfigError if the family cannot be imported or built, or lacks a member.
    """
    return build(policy.family, ModelFamily, "policy.family", {}, {})
