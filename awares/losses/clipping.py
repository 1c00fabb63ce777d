"""Computes probability ratios, and the clipped objective of PPO (arXiv 1707.06347, equation 7)."""

import torch
from torch import Tensor

from awares.losses.policy_loss import Gain

# Log-ratios are clamped to [-20, 20], so that exp cannot overflow. Outside, the gradient is 0.
LOG_BOUND = 20.0


def ratio(log_ratio: Tensor) -> Tensor:
    """Return e to the power of `log_ratio`, clamped so that the result is always finite."""
    return log_ratio.clamp(-LOG_BOUND, LOG_BOUND).exp()


def clipped_gain(
    log_ratios_BT: Tensor, advantages_B1: Tensor, *, below: float, above: float
) -> Gain:
    """Return min(r * A, clip(r) * A) for each token.

    r is the ratio, A is the advantage, and clip(r) is r clipped to [1 - `below`, 1 + `above`].
    """
    ratios_BT = ratio(log_ratios_BT)
    clipped_BT = ratios_BT.clamp(1 - below, 1 + above)
    free_BT, bounded_BT = ratios_BT * advantages_B1, clipped_BT * advantages_B1
    return Gain(torch.minimum(free_BT, bounded_BT), ratios_BT, bounded_BT < free_BT)
