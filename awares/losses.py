"""The losses of the two training stages.

Axes: B episodes (or trajectories), T tokens, padded on the right. `logprobs_BT[b, t]` is log p(token t | tokens before t); entries
outside the mask are ignored, whatever they hold.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

# exp of more is no information, only overflow; the gradient beyond it is cut.
_LOG_BOUND = 20.0


@dataclass(frozen=True, slots=True)
class GrpoSettings:
    """Settings of the GRPO loss: the clip range 1 - `clip_low` to 1 + `clip_high`, the weight of the KL term, and the cap of the
    importance weights between behaviour and proximal policy. TRL's defaults and the paper's beta.

    Example:
        GrpoSettings(clip_low=0.2, clip_high=0.2, kl_beta=0.05, importance_cap=2.0)
    """

    clip_low: float = 0.2
    clip_high: float = 0.2
    kl_beta: float = 0.05
    importance_cap: float = 2.0


@dataclass(frozen=True, slots=True)
class GrpoStats:
    """Means over the sampled tokens of the batch, but for `tokens`, their number, and `loss`.

    `kl` estimates KL to the reference (k3); `ratio` is policy over proximal; `clip_fraction` the share where the clipped branch is
    taken; `truncated_share` the share whose importance weight hit the cap; `behaviour_gap` |proximal - behaviour| in nats; `surprise`
    the mean of -logprob.

    Example:
        GrpoStats(loss=0.02, kl=0.001, ratio=1.0, clip_fraction=0.0, truncated_share=0.0, behaviour_gap=0.001, surprise=0.3, tokens=96)
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
    """Weighted negative log-likelihood, -sum(w * logprob) / sum(w); a scalar with gradient.

    The tool-call turn's tokens weigh w_t (paper, section 3.3), context and padding 0. `normaliser` replaces the sum of this batch's
    weights, for micro-batches and ranks that share one optimiser step. Weights that are all zero give 0.
    """
    weighed_BT = weights_BT != 0
    total = torch.where(weighed_BT, logprobs_BT, 0.0).mul(weights_BT).sum()
    below = (
        weights_BT.sum()
        if normaliser is None
        else torch.as_tensor(normaliser, dtype=total.dtype, device=total.device)
    )
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
    """The GRPO loss (paper, section 3.4) and its figures.

    Per sampled token: w * min(r * A, clip(r) * A) - beta * k3, where r = policy / proximal carries the gradient, w = min(proximal /
    behaviour, cap) corrects for asynchronous sampling (1 when the proximal policy sampled the tokens), and k3 = e^d - d - 1 with d =
    reference - policy. Then the mean over each episode's sampled tokens, and over B episodes; `episodes` replaces B, for micro-batches
    and ranks that share one optimiser step. Behaviour, proximal and reference logprobs are constants.
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
    """Schulman's estimate e^d - d - 1, d = reference - policy, of KL(policy || reference) per sampled token; never negative."""
    difference = (reference - logprobs).clamp(max=_LOG_BOUND)
    return difference.exp() - difference - 1


def _kept(values_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """In fp32, zero outside the mask before any exp, so that garbage there reaches neither loss nor gradient."""
    return torch.where(mask_BT, values_BT.float(), 0.0)


def _exp(log_ratio: Tensor) -> Tensor:
    return log_ratio.clamp(-_LOG_BOUND, _LOG_BOUND).exp()


def _episode_means(values_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """The mean over each episode's sampled tokens; 0 for one without any."""
    return (values_BT * mask_BT).sum(1) / mask_BT.sum(1).clamp(min=1)


def _mean(values_BT: Tensor, mask_BT: Tensor) -> float:
    return ((values_BT.detach() * mask_BT).sum() / mask_BT.sum().clamp(min=1)).item()
