"""Computes means over the sampled tokens of an optimizer step.

Each function returns the part of the mean that one micro-batch contributes. The parts of all
micro-batches add up to the mean.
"""

from torch import Tensor

from awares.losses.policy_loss import BatchTotals


def episode_mean(values_BT: Tensor, mask_BT: Tensor, totals: BatchTotals) -> Tensor:
    """Average over the sampled tokens of each episode, and then over the episodes.

    An episode without sampled tokens counts as 0.
    """
    means_B = (values_BT * mask_BT).sum(1) / mask_BT.sum(1).clamp(min=1)
    return means_B.sum() / totals.episodes


def token_mean(values_BT: Tensor, mask_BT: Tensor, totals: BatchTotals) -> Tensor:
    """Return the mean over all sampled tokens. Without sampled tokens the mean is 0."""
    return (values_BT * mask_BT).sum() / max(totals.tokens, 1)


def fixed_mean(values_BT: Tensor, mask_BT: Tensor, totals: BatchTotals, length: int) -> Tensor:
    """Sum over each episode's tokens, divide by `length`, and average over episodes."""
    return (values_BT * mask_BT).sum() / (totals.episodes * length)
