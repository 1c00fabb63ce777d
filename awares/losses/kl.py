"""Estimates the KL divergence of the policy from the reference policy."""

import math

import torch
from torch import Tensor

from awares.losses.clipping import LOG_BOUND

# Beyond this log-ratio, k3 grows linearly instead of exponentially.
_K3_BOUND = 5.0


def k3(logprobs: Tensor, reference: Tensor) -> Tensor:
    """Return Schulman's estimate k3 of KL(policy || reference) for each sampled token.

    With d as the reference logprob minus the policy's logprob, the estimate is

        e^d - d - 1                for d <= 5
        its tangent at d = 5       for 5 < d <= 20, with the slope e^5 - 1 = 147
        constant                   for d > 20

    Without these bounds, one token with d = 19 would decide a whole step. TRL's estimate has no
    bounds. For d <= 5 and with `use_bias_correction_kl=False`, TRL's estimate is the same. By
    default, TRL 1.16 multiplies it by the ratio of policy to proximal policy (arXiv 2512.02556).
    """
    difference = (reference - logprobs).clamp(max=LOG_BOUND)
    slope = math.exp(_K3_BOUND) - 1
    tangent = slope - _K3_BOUND + slope * (difference - _K3_BOUND)
    return torch.where(difference > _K3_BOUND, tangent, difference.exp() - difference - 1)
