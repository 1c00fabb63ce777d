"""Computes the GRPO loss for probability ratios that a test gives."""

import torch
from torch import Tensor, log, tensor

from awares.losses import Grpo, GrpoSettings, grpo_loss

PLAIN = GrpoSettings(Grpo(clip=0.2), kl_beta=0.0, importance_cap=2.0)
"""The loss GRPO without a KL term."""


def run(ratios, advantages, settings=PLAIN, *, lags=None, references=None, mask=None, totals=None):
    """Return the loss, the statistics and the gradient for given ratios of probabilities.

    ratios      probability under the policy / probability under the proximal policy
    lags        probability under the proximal policy / under the behaviour policy
    references  probability under the reference policy / under the policy
    """
    ratio_BT = tensor(ratios)
    proximal_BT = torch.full_like(ratio_BT, -1.0)
    policy_BT = (proximal_BT + log(ratio_BT)).requires_grad_()
    behaviour_BT = proximal_BT - log(tensor(lags)) if lags else proximal_BT
    reference_BT = (
        policy_BT.detach() + log(tensor(references)) if references else policy_BT.detach()
    )
    mask_BT = torch.ones_like(ratio_BT, dtype=torch.bool) if mask is None else tensor(mask)
    loss, stats = grpo_loss(
        policy_BT,
        behaviour_BT,
        proximal_BT,
        reference_BT,
        tensor(advantages),
        mask_BT,
        settings,
        totals,
    )
    loss.backward()
    assert isinstance(policy_BT.grad, Tensor)
    return loss.item(), stats, policy_BT.grad
