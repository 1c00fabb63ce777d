"""Computes the importance weights, which correct for asynchronous sampling.

The behaviour policy is the policy that sampled a token. The proximal policy is the policy from
which a step may not move far. The weight of a token is the ratio of its probabilities under the
proximal and the behaviour policy, with an upper bound. The decoupled PPO objective multiplies this
weight by the ratio of policy to proximal policy (arXiv 2110.00641; AReaL, arXiv 2505.24298).

Axes: B episodes, T tokens. A tensor with the axes B1 has one value per episode.
"""

from typing import Literal

import torch
from torch import Tensor

from awares.losses.clipping import ratio

ImportanceRule = Literal["token_truncate", "sequence_truncate", "sequence_mask"]
"""How the weights of tokens are limited.

- "token_truncate": each token has its own ratio, at most the cap.
- "sequence_truncate": each token has the product of its episode's ratios, at most the cap.
- "sequence_mask": the same product, but 0 above the cap. Only the KL term then trains the episode.

TRL 1.16 has the same names in `vllm_importance_sampling_mode`, and its default is "sequence_mask".
"""


def importance_weights(lags_BT: Tensor, rule: ImportanceRule, cap: float) -> tuple[Tensor, Tensor]:
    """Return the weight of each token, and whether the rule has cut or masked the weight.

    `lags_BT` holds the proximal logprob minus the behaviour logprob, and 0 at positions that were
    not sampled.
    """
    if rule == "token_truncate":
        ratios_BT = ratio(lags_BT)
        return ratios_BT.clamp(max=cap), ratios_BT > cap
    products_BT = ratio(lags_BT.sum(1, keepdim=True)).expand_as(lags_BT)
    cut_BT = products_BT > cap
    bound = cap if rule == "sequence_truncate" else 0.0
    return torch.where(cut_BT, bound, products_BT), cut_BT
