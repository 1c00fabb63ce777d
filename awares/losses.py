"""The losses of the two training stages: SFT (paper, section 3.3) and GRPO (section 3.4).

Axes: B episodes or demonstrations, T tokens, padded on the right. `logprobs_BT[b, t]` is
log p(token t | tokens before t). Values at positions outside the action mask have no effect.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

# Log-ratios are clamped to +-20, so that exp cannot overflow. Beyond this bound the gradient is 0.
_LOG_BOUND = 20.0
# Beyond this log-ratio, k3 grows linearly instead of exponentially.
_K3_BOUND = 5.0


@dataclass(frozen=True, slots=True)
class GrpoSettings:
    """Settings of the GRPO loss.

    The policy ratio is clipped to the range from 1 - `clip_low` to 1 + `clip_high`. `kl_beta` is
    the weight of the KL term. `importance_cap` bounds the importance weight, which is the ratio of
    the proximal policy to the behaviour policy. The default of `kl_beta` is the paper's; the other
    defaults are TRL's.

    Example:
        GrpoSettings(clip_low=0.2, clip_high=0.2, kl_beta=0.05, importance_cap=2.0)
    """

    clip_low: float = 0.2
    clip_high: float = 0.2
    kl_beta: float = 0.05
    importance_cap: float = 2.0


@dataclass(frozen=True, slots=True)
class GrpoStats:
    """Figures of a batch: the loss, the number of sampled tokens, and means over these tokens.

    `kl` is the k3 estimate of the KL divergence from the reference policy. `ratio` is a token's
    probability under the policy, divided by its probability under the proximal policy.
    `clip_fraction` is the share of tokens at which the clipping reduces the objective.
    `truncated_share` is the share of tokens whose importance weight is cut to the cap.
    `behaviour_gap` is the absolute difference between the proximal and the behaviour logprob, in
    nats. `surprise` is the negative logprob of a token under the policy.

    Example:
        GrpoStats(
            loss=0.02, kl=0.001, ratio=1.0, clip_fraction=0.0, truncated_share=0.0,
            behaviour_gap=0.001, surprise=0.3, tokens=96,
        )
    """

    loss: float
    kl: float
    ratio: float
    clip_fraction: float
    truncated_share: float
    behaviour_gap: float
    surprise: float
    tokens: int


def sft_loss(
    logprobs_BT: Tensor, weights_BT: Tensor, normaliser: float | Tensor | None = None
) -> Tensor:
    """Return the weighted negative log-likelihood, with gradient.

        -sum(w * logprob) / sum(w)

    w is the weight of a token. The tokens of a request have the weight w_t of the paper's section
    3.3. Tokens of context and padding have the weight 0. `normaliser` replaces sum(w) if several
    micro-batches or ranks share one optimizer step. If all weights are zero, the loss is 0.
    """
    weighed_BT = weights_BT != 0
    total = torch.where(weighed_BT, logprobs_BT, 0.0).mul(weights_BT).sum()
    shared = weights_BT.sum() if normaliser is None else normaliser
    below = torch.as_tensor(shared, dtype=total.dtype, device=total.device)
    return -total / below.clamp(min=torch.finfo(total.dtype).tiny)


def grpo_loss(
    logprobs_BT: Tensor,
    behaviour_logprobs_BT: Tensor,
    proximal_logprobs_BT: Tensor,
    reference_logprobs_BT: Tensor,
    advantages_B: Tensor,
    action_mask_BT: Tensor,
    settings: GrpoSettings,
    episodes: int | None = None,
) -> tuple[Tensor, GrpoStats]:
    """Return the GRPO loss (paper, section 3.4) and the figures of the batch.

    The objective of one sampled token is

        w * min(r * A, clip(r) * A) - beta * k3

        r    the policy's probability, divided by the proximal policy's probability;
             only r and k3 carry the gradient
        w    min(proximal / behaviour, cap), which corrects for asynchronous sampling;
             w is 1 if the proximal policy sampled the token
        A    the advantage of the episode
        k3   e^d - d - 1, where d is the reference logprob minus the policy's logprob;
             the function `k3` bounds it for large d

    The objective is averaged over the sampled tokens of each episode, and then over the B episodes.
    The loss is the negative of this mean. `episodes` replaces B if several micro-batches or ranks
    share one optimizer step. The behaviour, proximal and reference logprobs are constants.
    """
    mask_BT = action_mask_BT.bool()
    policy_BT = _kept(logprobs_BT, mask_BT)
    proximal_BT = _kept(proximal_logprobs_BT, mask_BT).detach()
    lag_BT = proximal_BT - _kept(behaviour_logprobs_BT, mask_BT).detach()
    ratio_BT = _exp(policy_BT - proximal_BT)
    clipped_BT = ratio_BT.clamp(1 - settings.clip_low, 1 + settings.clip_high)
    advantages_BT = advantages_B.to(policy_BT.dtype).unsqueeze(1)
    weight_BT = _exp(lag_BT).clamp(max=settings.importance_cap)
    gain_BT = weight_BT * torch.minimum(ratio_BT * advantages_BT, clipped_BT * advantages_BT)
    kl_BT = k3(policy_BT, _kept(reference_logprobs_BT, mask_BT).detach())
    objective_B = _episode_means(gain_BT - settings.kl_beta * kl_BT, mask_BT)
    loss = -objective_B.sum() / (len(objective_B) if episodes is None else episodes)
    stats = GrpoStats(
        loss=loss.item(),
        kl=_mean(kl_BT, mask_BT),
        ratio=_mean(ratio_BT, mask_BT),
        clip_fraction=_mean(
            (clipped_BT * advantages_BT < ratio_BT * advantages_BT).float(), mask_BT
        ),
        truncated_share=_mean((_exp(lag_BT) > settings.importance_cap).float(), mask_BT),
        behaviour_gap=_mean(lag_BT.abs(), mask_BT),
        surprise=_mean(-policy_BT, mask_BT),
        tokens=int(mask_BT.sum()),
    )
    return loss, stats


def k3(logprobs: Tensor, reference: Tensor) -> Tensor:
    """Return Schulman's estimate k3 of KL(policy || reference) for each sampled token.

    The estimate is e^d - d - 1, where d is the reference logprob minus the policy's logprob. The
    estimate is never negative. With d = 19, its gradient of 2e8 would let one token decide a whole
    step. For d > 5, the estimate therefore follows its tangent at 5, whose slope is e^5 - 1 = 147.
    For d > 20, it is constant.
    """
    difference = (reference - logprobs).clamp(max=_LOG_BOUND)
    slope = math.exp(_K3_BOUND) - 1
    tangent = slope - _K3_BOUND + slope * (difference - _K3_BOUND)
    return torch.where(difference > _K3_BOUND, tangent, difference.exp() - difference - 1)


def _kept(values_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Return the values in fp32, with zeros outside the mask.

    Call this function before any exp. A NaN or an infinity outside the mask would otherwise reach
    the gradient.
    """
    return torch.where(mask_BT, values_BT.float(), 0.0)


def _exp(log_ratio: Tensor) -> Tensor:
    return log_ratio.clamp(-_LOG_BOUND, _LOG_BOUND).exp()


def _episode_means(values_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Return each episode's mean over its sampled tokens, or 0 if no token was sampled."""
    return (values_BT * mask_BT).sum(1) / mask_BT.sum(1).clamp(min=1)


def _mean(values_BT: Tensor, mask_BT: Tensor) -> float:
    return ((values_BT.detach() * mask_BT).sum() / mask_BT.sum().clamp(min=1)).item()
