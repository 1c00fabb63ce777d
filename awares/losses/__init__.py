"""The losses of the two training stages: SFT (paper, section 3.3) and GRPO (section 3.4).

`grpo_loss` is the same for all policy losses except for the two methods of a PolicyLoss:

    PolicyLoss.gain --> times the importance weight --> minus the KL term --> PolicyLoss.mean

    policy_loss    the protocol PolicyLoss, and what it gets and returns
    grpo, clip_higher, dr_grpo, dapo, gspo, cispo    one policy loss each
    clipping       the clipped objective that most of them share
    means          the means over episodes and tokens
    importance     the weights that correct for asynchronous sampling
    kl             the estimate of the distance from the reference policy
    objective      grpo_loss: the loss of a batch, and its figures
    sft            the loss of SFT

Axes: B episodes or demonstrations, T tokens, padded on the right. `logprobs_BT[b, t]` is
log p(token t | tokens before t). Values at positions outside the action mask have no effect.
"""

from awares.losses.cispo import Cispo
from awares.losses.clip_higher import ClipHigher
from awares.losses.dapo import Dapo
from awares.losses.dr_grpo import DrGrpo
from awares.losses.grpo import Grpo
from awares.losses.gspo import Gspo
from awares.losses.importance import ImportanceRule
from awares.losses.kl import k3
from awares.losses.objective import GrpoSettings, GrpoStats, grpo_loss
from awares.losses.policy_loss import BatchTotals, Gain, PolicyLoss, SampledTokens
from awares.losses.sft import sft_loss

__all__ = [
    "BatchTotals",
    "Cispo",
    "ClipHigher",
    "Dapo",
    "DrGrpo",
    "Gain",
    "Grpo",
    "GrpoSettings",
    "GrpoStats",
    "Gspo",
    "ImportanceRule",
    "PolicyLoss",
    "SampledTokens",
    "grpo_loss",
    "k3",
    "sft_loss",
]
