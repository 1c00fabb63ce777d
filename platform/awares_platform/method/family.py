"""Builds the model family from the section [policy]."""

from awares.family import ModelFamily
from awares_platform.config.policy import PolicyConfig
from awares_platform.method.seams import build


def model_family(policy: PolicyConfig) -> ModelFamily:
    """Build policy.family. Raises ConfigError if it cannot be imported or lacks a member."""
    return build(policy.family, ModelFamily, "policy.family", {}, {})
