"""The losses of the two training stages: SFT (paper, section 3.3) and GRPO (section 3.4).

A policy loss has two methods. Its `gain` gives the objective of each token. `grpo_loss` multiplies
this objective by the importance weight and subtracts the KL term. The policy loss's `mean` then
averages over the tokens. The modules are:

    policy_loss.py  defines the protocol PolicyLoss, and the data that its methods get and return
    grpo.py, clip_higher.py, dr_grpo.py, dapo.py, gspo.py and cispo.py  define one policy loss each
    clipping.py     computes the clipped objective that all policy losses except CISPO share
    means.py        averages over episodes and tokens
    importance.py   computes the weights that correct for asynchronous sampling
    kl.py           estimates the distance from the reference policy
    objective.py    computes the loss of a batch with `grpo_loss`, and the figures of the batch
    sft.py          computes the loss of SFT

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
