"""Makes the frozen starting policy, whose logprobs are the reference of the loss's KL term."""

import copy
from collections.abc import Callable
from typing import Any

from torch import nn

from awares_platform.config.grpo import GrpoConfig
from awares_platform.config.policy import PolicyConfig
from awares_platform.training import zero
from awares_platform.training.partition import frozen_engine


def frozen_reference(
    model: nn.Module, load: Callable[[], nn.Module], settings: GrpoConfig, policy: PolicyConfig
) -> Any:
    """Return a frozen copy of the starting policy `model`, or None if the loss needs no copy.

    With ZeRO-3, the copy is the partitioned model that `load` returns, and every rank must call
    this function.
    """
    if settings.kl_beta == 0 or policy.lora_rank:
        return None
    if settings.zero_stage < 3:
        return copy.deepcopy(model).requires_grad_(False).eval()
    return frozen_engine(
        load(), zero.settings_of(settings, policy.dtype), settings.learner_gpus > 0
    )
