"""The loss of SFT (paper, section 3.3)."""

import torch
from torch import Tensor


def sft_loss(
    logprobs_BT: Tensor, weights_BT: Tensor, normaliser: float | Tensor | None = None
) -> Tensor:
    """Return the weighted negative log-likelihood, -sum(w * logprob) / sum(w), with gradient.

    w is the paper's w_t (section 3.3) in requests, 0 for context, and otherwise 1. `normaliser`
    replaces sum(w) if several micro-batches share one optimizer step.
    """
    weighed_BT = weights_BT != 0
    total = torch.where(weighed_BT, logprobs_BT, 0.0).mul(weights_BT).sum()
    shared = weights_BT.sum() if normaliser is None else normaliser
    below = torch.as_tensor(shared, dtype=total.dtype, device=total.device)
    return -total / below.clamp(min=torch.finfo(total.dtype).tiny)
