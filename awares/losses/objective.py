"""Computes the GRPO loss of a batch (paper, section 3.4), and its statistics.

Axes: B episodes, T tokens, padded on the right.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from awares.losses.grpo import Grpo
from awares.losses.importance import ImportanceRule, importance_weights
from awares.losses.kl import k3
from awares.losses.policy_loss import BatchTotals, PolicyLoss, SampledTokens


@dataclass(frozen=True, slots=True)
class GrpoSettings:
    """Settings of the GRPO loss.

    Example:
        GrpoSettings(Grpo(clip=0.2), kl_beta=0.05, importance_cap=2.0)
    """

    policy_loss: PolicyLoss = Grpo()
    kl_beta: float = 0.05
    """The weight of the KL term. The default is the paper's; TRL's default of `beta` is 0."""
    importance: ImportanceRule = "token_truncate"
    """The rule that limits importance weights. TRL's defaults are "sequence_mask" and the cap 3."""
    importance_cap: float = 2.0
    """The largest importance weight, a choice of this project."""


@dataclass(frozen=True, slots=True)
class GrpoStats:
    """Figures of a batch: the loss, the number of sampled tokens, and means over these tokens.

    Example:
        GrpoStats(
            loss=0.02, kl=0.001, ratio=1.0, clip_fraction=0.0, truncated_share=0.0,
            behaviour_gap=0.001, surprise=0.3, tokens=96,
        )
    """

    loss: float
    kl: float
    """The k3 estimate of the KL divergence from the reference policy."""
    ratio: float
    """A token's probability under the policy, divided by that under the proximal policy.

    For GSPO, this is the ratio of the token's episode.
    """
    clip_fraction: float
    """The share of tokens whose objective is changed by the clip."""
    truncated_share: float
    """The share of tokens whose importance weight is cut or masked."""
    behaviour_gap: float
    """The absolute difference between the proximal and the behaviour logprob, in nats."""
    surprise: float
    """The negative logprob of a token under the policy."""
    tokens: int


def grpo_loss(
    logprobs_BT: Tensor,
    behaviour_logprobs_BT: Tensor,
    proximal_logprobs_BT: Tensor,
    reference_logprobs_BT: Tensor,
    advantages_B: Tensor,
    action_mask_BT: Tensor,
    settings: GrpoSettings,
    totals: BatchTotals | None = None,
) -> tuple[Tensor, GrpoStats]:
    """Return the GRPO loss (paper, section 3.4) and the figures of the batch.

    The loss is the negative mean of this objective over the sampled tokens:

        w * gain - beta * k3

    gain  the objective of `settings.policy_loss`; for Grpo it is min(r * A, clip(r) * A)
    r     the policy's probability, divided by the proximal policy's probability
    A     the advantage of the episode
    w     the importance weight, which corrects for asynchronous sampling
    beta  `settings.kl_beta`
    k3    the estimate of the KL divergence from the reference policy

    Pass `totals` if several micro-batches or ranks share an optimizer step. The loss and its
    gradient are NaN if the loss or a logprob is not finite.
    """
    mask_BT = action_mask_BT.bool()
    policy_BT = _kept(logprobs_BT, mask_BT)
    proximal_BT = _kept(proximal_logprobs_BT, mask_BT).detach()
    lags_BT = proximal_BT - _kept(behaviour_logprobs_BT, mask_BT).detach()
    advantages_B1 = advantages_B.to(policy_BT.dtype).unsqueeze(1)
    sampled = SampledTokens(policy_BT, policy_BT - proximal_BT, advantages_B1, mask_BT)
    gain = settings.policy_loss.gain(sampled)
    weights_BT, cut_BT = importance_weights(lags_BT, settings.importance, settings.importance_cap)
    reference_BT = _kept(reference_logprobs_BT, mask_BT).detach()
    kl_BT = k3(policy_BT, reference_BT)
    objective_BT = weights_BT * gain.values_BT - settings.kl_beta * kl_BT
    tokens = int(mask_BT.sum())
    shared = BatchTotals(len(mask_BT), tokens) if totals is None else totals
    loss = -settings.policy_loss.mean(objective_BT, mask_BT, shared)
    stats = GrpoStats(
        loss=loss.item(),
        kl=_mean(kl_BT, mask_BT),
        ratio=_mean(gain.ratios_BT, mask_BT),
        clip_fraction=_mean(gain.clipped_BT.float(), mask_BT),
        truncated_share=_mean(cut_BT.float(), mask_BT),
        behaviour_gap=_mean(lags_BT.abs(), mask_BT),
        surprise=_mean(-policy_BT, mask_BT),
        tokens=tokens,
    )
    return _spoilt_unless_finite(loss, policy_BT, lags_BT, reference_BT), stats


def _spoilt_unless_finite(loss: Tensor, policy_BT: Tensor, *others: Tensor) -> Tensor:
    """Return `loss`, or a NaN with a gradient of NaN if one of the tensors is not finite.

    The clamps of the loss give a NaN the gradient 0, so an optimizer would not notice the NaN.
    """
    if all(bool(values.isfinite().all()) for values in (loss, policy_BT, *others)):
        return loss
    return loss + math.nan * policy_BT.sum()


def _kept(values_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Return the values in fp32, with zeros outside the mask.

    The loss needs these zeros before it takes any exponential. Otherwise, a NaN or an infinity
    outside the mask would reach the gradient.
    """
    return torch.where(mask_BT, values_BT.float(), 0.0)


def _mean(values_BT: Tensor, mask_BT: Tensor) -> float:
    return ((values_BT.detach() * mask_BT).sum() / mask_BT.sum().clamp(min=1)).item()
