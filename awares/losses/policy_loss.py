"""Defines the protocol of a policy loss, and the data that it gets and returns.

Axes: B episodes, T tokens. A tensor with the axes B1 has one value per episode.
"""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True, slots=True)
class SampledTokens:
    """The tokens of B episodes, as a policy loss sees them.

    Example:
        SampledTokens(logprobs_BT, log_ratios_BT, advantages_B1, mask_BT)
    """

    logprobs_BT: Tensor
    """The logprobs under the policy, with the gradient, and 0 outside `mask_BT`."""
    log_ratios_BT: Tensor
    """The logprobs under the policy minus the logprobs under the proximal policy."""
    advantages_B1: Tensor
    """The episodes' advantages."""
    mask_BT: Tensor
    """True for sampled tokens."""


@dataclass(frozen=True, slots=True)
class Gain:
    """The objective of each token, without importance weight and KL term.

    Example:
        Gain(values_BT, ratios_BT, clipped_BT)
    """

    values_BT: Tensor
    """The objectives."""
    ratios_BT: Tensor
    """The probability ratios that the loss uses."""
    clipped_BT: Tensor
    """True for a token whose objective is changed by a clip."""


@dataclass(frozen=True, slots=True)
class BatchTotals:
    """The numbers of episodes and sampled tokens of an optimizer step.

    Several micro-batches and ranks may share the step. The numbers then count all of them.

    Example:
        BatchTotals(episodes=64, tokens=1024)
    """

    episodes: int
    tokens: int


class PolicyLoss(Protocol):
    """Defines a policy loss by the objective of a token and by the mean over the tokens.

    Example:
        `awares.losses.Grpo` is the smallest policy loss.
    """

    def gain(self, tokens: SampledTokens) -> Gain:
        """Return the objective of each token."""
        ...

    def mean(self, values_BT: Tensor, mask_BT: Tensor, totals: BatchTotals) -> Tensor:
        """Return this batch's part of the mean of `values_BT` over the optimizer step.

        The parts of all micro-batches add up to the mean.
        """
        ...
