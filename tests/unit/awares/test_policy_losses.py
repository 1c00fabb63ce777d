"""Compares each policy loss, and each rule for importance weights, with hand-computed values.

A    the advantage of an episode
r    a token's probability under the policy / under the proximal policy
lag  a token's probability under the proximal policy / under the behaviour policy
w    the importance weight of a token
"""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, tensor

from awares.losses import (
    BatchTotals,
    Cispo,
    ClipHigher,
    Dapo,
    DrGrpo,
    Grpo,
    GrpoSettings,
    Gspo,
    grpo_loss,
    k3,
)
from tests.unit.awares.loss_of_ratios import PLAIN, run

ONE_OR_THREE = [[True, False, False], [True, True, True]]
"""The masks of two episodes: one with one token, and one with three tokens."""


def with_loss(policy_loss) -> GrpoSettings:
    return replace(PLAIN, policy_loss=policy_loss)


def about(rows):
    return [[pytest.approx(value, abs=1e-6) for value in row] for row in rows]


def test_clip_higher_has_two_bounds():
    # Ratios are clipped to the interval from 0.8 to 1.28.
    #     A = 1:   1.25 and 1.28, mean 1.265
    #     A = -1:  min(-0.7, -0.8) = -0.8 and -0.9, mean -0.85
    loss, stats, gradient = run(
        [[1.25, 1.3], [0.7, 0.9]], [1.0, -1.0], with_loss(ClipHigher(0.2, 0.28))
    )
    assert loss == pytest.approx(-(1.265 - 0.85) / 2)
    # The gradient of an unclipped token is -A * r / 4, for two episodes with two tokens each.
    assert gradient.tolist() == about([[-1.25 / 4, 0.0], [0.0, 0.9 / 4]])
    assert stats.clip_fraction == 0.5
    assert run([[1.25, 1.3]], [1.0])[0] == pytest.approx(-1.2)


def test_dr_grpo_divides_by_a_constant():
    # The terms of the first episode sum to 2, and those of the second to -3. The sums are divided
    # by the constant 4 and by the 2 episodes: loss = -(2 - 3) / (4 * 2).
    loss, _, gradient = run([[1.0] * 3] * 2, [2.0, -1.0], with_loss(DrGrpo(4)), mask=ONE_OR_THREE)
    assert loss == pytest.approx(1 / 8)
    assert gradient.tolist() == about([[-2 / 8, 0.0, 0.0], [1 / 8] * 3])
    clipped, _, gradient = run([[1.5]], [1.0], with_loss(DrGrpo(4)))
    assert clipped == pytest.approx(-1.2 / 4) and gradient.tolist() == [[0.0]]


def test_dapo_weighs_all_tokens_alike():
    # Episode 1 has one token with the clipped term 1.28. Episode 2 has three tokens with the term
    # -1. The mean is -1.72 / 4.
    loss, _, gradient = run(
        [[1.5, 1.0, 1.0], [1.0] * 3], [1.0, -1.0], with_loss(Dapo()), mask=ONE_OR_THREE
    )
    assert loss == pytest.approx(1.72 / 4)
    assert gradient.tolist() == about([[0.0, 0.0, 0.0], [1 / 4] * 3])


def test_gspo_clips_the_ratio_of_an_episode():
    # The ratio of an episode is the geometric mean of its tokens' r. The ratio is clipped to the
    # interval from 0.8 to 1.28.
    #     A = 2:  ratio sqrt(1.5 * 0.6) = sqrt(0.9), term 2 * sqrt(0.9)
    #     A = 1:  ratio sqrt(2 * 1.125) = 1.5, term 1.28
    settings = with_loss(Gspo(0.2, 0.28))
    loss, stats, gradient = run([[1.5, 0.6], [2.0, 1.125]], [2.0, 1.0], settings)
    assert loss == pytest.approx(-(2 * math.sqrt(0.9) + 1.28) / 2)
    # Both tokens of an episode share the gradient -A * ratio / (2 * 2).
    assert gradient.tolist() == about([[-2 * math.sqrt(0.9) / 4] * 2, [0.0, 0.0]])
    assert stats.clip_fraction == 0.5
    assert stats.ratio == pytest.approx((math.sqrt(0.9) + 1.5) / 2)


def test_gspo_counts_only_sampled_tokens():
    # The geometric mean over the tokens 1 and 3 is sqrt(1.21) = 1.1.
    settings, mask = with_loss(Gspo(0.2, 0.28)), [[True, False, True]]
    loss, _, gradient = run([[1.21, 9.0, 1.0]], [1.0], settings, mask=mask)
    assert loss == pytest.approx(-1.1)
    assert gradient.tolist() == about([[-1.1 / 2, 0.0, -1.1 / 2]])


def test_gspo_has_the_narrow_range_of_its_paper():
    loss, _, _ = run([[1.01, 1.01], [0.9, 0.9]], [1.0, -1.0], with_loss(Gspo()))
    assert loss == pytest.approx(-(1.0004 - 0.9997) / 2, abs=1e-6)


def test_cispo_bounds_the_ratio_and_keeps_the_gradient():
    # The logprobs are -1 + log(r). The terms are min(r, 2) * A * logprob with A = 2.
    loss, stats, gradient = run([[0.5, 3.0]], [2.0], with_loss(Cispo(2.0)))
    terms = (0.5 * 2 * (-1 + math.log(0.5)), 2.0 * 2 * (-1 + math.log(3.0)))
    assert loss == pytest.approx(-sum(terms) / 2)
    # The gradient is -min(r, 2) * A / 2, even for the second token, whose ratio is clipped.
    assert gradient.tolist() == about([[-0.5 * 2 / 2, -2.0 * 2 / 2]])
    assert stats.clip_fraction == 0.5


def test_cispo_averages_over_tokens():
    settings = with_loss(Cispo(5.0))
    _, _, gradient = run([[1.0] * 3] * 2, [1.0, -1.0], settings, mask=ONE_OR_THREE)
    assert gradient.tolist() == about([[-1 / 4, 0.0, 0.0], [1 / 4] * 3])


def test_a_product_of_importance_ratios_is_truncated():
    # The product of the lags is truncated to 2. A is 3, and all r are 1.
    #     Episode 1:  product 0.5 * 1.5 * 8 = 6, terms 2 * 3 = 6
    #     Episode 2:  product 0.5 * 1.5 = 0.75, terms 0.75 * 3 = 2.25
    settings = replace(PLAIN, importance="sequence_truncate")
    lags, mask = [[0.5, 1.5, 8.0], [0.5, 1.5, 9.0]], [[True] * 3, [True, True, False]]
    loss, stats, gradient = run([[1.0] * 3] * 2, [3.0, 3.0], settings, lags=lags, mask=mask)
    assert loss == pytest.approx(-(6 + 2.25) / 2)
    assert gradient.tolist() == about([[-1.0] * 3, [-2.25 / 4, -2.25 / 4, 0.0]])
    assert stats.truncated_share == pytest.approx(3 / 5)


def test_an_episode_with_a_large_product_is_masked_but_has_its_kl_term():
    # The product of the lags is 4 in episode 1, which exceeds the cap, so w is 0. In episode 2 the
    # product and w are 0.75.
    settings = replace(PLAIN, importance="sequence_mask", kl_beta=0.1)
    lags, references = [[0.5, 8.0], [0.5, 1.5]], [[2.0, 2.0], [1.0, 1.0]]
    loss, stats, gradient = run(
        [[1.0, 1.0]] * 2, [3.0, 3.0], settings, lags=lags, references=references
    )
    # The KL estimate of a token is 2 - log 2 - 1 in episode 1, and 0 in episode 2.
    assert loss == pytest.approx(-(2.25 - 0.1 * (1 - math.log(2))) / 2)
    # The derivative of k3 by the logprob is 1 - 2 in episode 1.
    assert gradient.tolist() == about([[-0.1 / 4] * 2, [-2.25 / 4] * 2])
    assert stats.truncated_share == 0.5


def test_the_trust_region_and_the_correction_are_decoupled():
    """Check that r = policy / proximal is clipped, and that w is proximal / behaviour policy.

    The token has the probability 0.165 under the policy, 0.15 under the proximal policy, and 0.1
    under the behaviour policy.
    """
    behaviour, proximal, policy = (tensor([[math.log(value)]]) for value in (0.1, 0.15, 0.165))

    def loss_and_gradient(anchor: Tensor) -> tuple[float, float]:
        found = policy.clone().requires_grad_()
        kinds = (behaviour, anchor, found.detach())
        loss, _ = grpo_loss(found, *kinds, tensor([1.0]), tensor([[True]]), PLAIN)
        loss.backward()
        assert found.grad is not None
        return loss.item(), found.grad.item()

    # With different proximal and behaviour policies, w = 1.5, and r = 1.1 is within the clip range.
    assert loss_and_gradient(proximal) == pytest.approx((-1.5 * 1.1, -1.5 * 1.1))
    # With the behaviour policy as proximal policy, w = 1, and r = 1.65 is clipped to 1.2.
    assert loss_and_gradient(behaviour) == pytest.approx((-1.2, 0.0))


@pytest.mark.parametrize(
    "policy_loss",
    [Grpo(), ClipHigher(), DrGrpo(3), Dapo(), Gspo(0.2, 0.2), Cispo()],
    ids=lambda loss: type(loss).__name__,
)
def test_the_parts_of_a_step_add_up_to_the_whole(policy_loss):
    ratios, advantages, settings = [[1.5, 0.5], [0.9, 1.1]], [2.0, -1.0], with_loss(policy_loss)
    mask = [[True, False], [True, True]]
    whole, _, gradient = run(ratios, advantages, settings, mask=mask)
    totals = BatchTotals(episodes=2, tokens=3)
    parts = [
        run(
            ratios[at : at + 1],
            advantages[at : at + 1],
            settings,
            mask=mask[at:][:1],
            totals=totals,
        )
        for at in (0, 1)
    ]
    assert sum(part[0] for part in parts) == pytest.approx(whole)
    torch.testing.assert_close(torch.cat([part[2] for part in parts]), gradient)


@pytest.mark.parametrize(
    "policy_loss",
    [DrGrpo(3), Dapo(), Gspo(), Cispo()],
    ids=lambda loss: type(loss).__name__,
)
def test_garbage_outside_the_mask_reaches_no_loss(policy_loss):
    settings = replace(with_loss(policy_loss), importance="sequence_truncate", kl_beta=0.1)
    wild = tensor([[float("nan"), -0.5, float("-inf")], [float("inf")] * 3])
    mask = tensor([[False, True, False], [False] * 3])
    policy = wild.clone().requires_grad_()
    loss, _ = grpo_loss(policy, wild, wild, wild, tensor([1.0, 1.0]), mask, settings)
    loss.backward()
    assert policy.grad is not None and math.isfinite(loss.item())
    assert (policy.grad != 0).tolist() == mask.tolist() and policy.grad.isfinite().all()


@pytest.mark.parametrize("policy_loss", [Grpo(), Gspo(), Cispo()])
def test_far_apart_policies_have_a_finite_loss(policy_loss):
    far = tensor([[-500.0, -500.0]], requires_grad=True)
    near = torch.zeros(1, 2)
    settings = replace(with_loss(policy_loss), importance="sequence_mask", kl_beta=0.05)
    loss, _ = grpo_loss(far, -far.detach(), near, near, tensor([1.0]), near == 0, settings)
    loss.backward()
    assert math.isfinite(loss.item()) and far.grad is not None and far.grad.isfinite().all()


@pytest.mark.parametrize("place", ["policy", "behaviour", "proximal", "reference"])
@pytest.mark.parametrize("value", [math.nan, -math.inf])
@pytest.mark.parametrize("policy_loss", [Grpo(), Gspo(), Cispo()])
def test_a_logprob_that_is_not_finite_makes_the_gradient_nan(policy_loss, value, place):
    """Otherwise an optimizer, which sees only gradients, takes the step."""
    policy, behaviour, proximal, reference = (torch.full((2, 3), -1.0) for _ in range(4))
    named = {"policy": policy, "behaviour": behaviour, "proximal": proximal, "reference": reference}
    named[place][1, 1] = value
    policy.requires_grad_()
    settings = replace(with_loss(policy_loss), kl_beta=0.05)
    mask, advantages = tensor([[True] * 3, [False, True, True]]), tensor([1.0, -1.0])
    loss, _ = grpo_loss(policy, behaviour, proximal, reference, advantages, mask, settings)
    loss.backward()
    assert policy.grad is not None and policy.grad.isnan().tolist() == mask.tolist()


def test_the_default_loss_has_the_very_bits_of_its_definition():
    """Compare the default loss, bit for bit, with its definition written as one expression."""
    made = torch.Generator().manual_seed(0)
    policy, proximal, behaviour, reference = (
        -2 + torch.randn(5, 7, generator=made) / 2 for _ in range(4)
    )
    advantages, mask = torch.randn(5, generator=made), torch.rand(5, 7, generator=made) < 0.7
    found, wanted = policy.clone().requires_grad_(), policy.clone().requires_grad_()
    loss, _ = grpo_loss(found, behaviour, proximal, reference, advantages, mask, GrpoSettings())
    loss.backward()
    ratio, scale = (wanted - proximal).exp(), advantages.unsqueeze(1)
    weight = (proximal - behaviour).exp().clamp(max=2.0)
    gain = weight * torch.minimum(ratio * scale, ratio.clamp(1 - 0.2, 1 + 0.2) * scale)
    values = (gain - 0.05 * k3(wanted, reference)) * mask
    definition = -(values.sum(1) / mask.sum(1).clamp(min=1)).sum() / 5
    definition.backward()
    assert torch.equal(loss, definition)
    assert found.grad is not None and wanted.grad is not None
    assert torch.equal(found.grad, wanted.grad)
