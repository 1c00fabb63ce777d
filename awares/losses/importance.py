"""Computes the importance weights, which correct for asynchronous sampling.

The weight of a token is its probability under the proximal policy, divided by its probability under
the policy that sampled it (arXiv 2110.00641; AReaL, arXiv 2505.24298).
"""

from typing import Literal

import torch
from torch import Tensor

from awares.losses.clipping import ratio

ImportanceRule = Literal["token_truncate", "sequence_truncate", "sequence_mask"]
"""How the weights of tokens are limited.

"token_truncate" cuts the ratio of each token to the cap. The other two rules give each token the
product of the ratios of all tokens of its episode. "sequence_truncate" cuts the product to the cap.
"sequence_mask" replaces a product above the cap by 0, so that only the KL term trains the episode.
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
