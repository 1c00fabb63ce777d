import math
from dataclasses import replace

import pytest
import torch
from torch import tensor

from awares.losses import BatchTotals, GrpoSettings, grpo_loss, k3, sft_loss
from tests.unit.awares.loss_of_ratios import PLAIN, run


def test_sft_by_hand():
    """The weight of a token is 5 in the tool turn, 1 in the answer and 0 in the context."""
    logprobs = tensor([[-9.0, -0.2, -0.4], [-9.0, -1.0, -7.0]])
    weights = tensor([[0.0, 5.0, 5.0], [0.0, 1.0, 0.0]])
    # The loss is the weighted mean of -logprob: (5 * 0.2 + 5 * 0.4 + 1 * 1.0) / 11.
    assert sft_loss(logprobs, weights).item() == pytest.approx(4.0 / 11)


def test_sft_micro_batches_add_up_to_the_whole():
    logprobs, weights = tensor([[-0.2, -0.4], [-1.0, -3.0]]), tensor([[5.0, 5.0], [1.0, 0.0]])
    parts = [
        sft_loss(logprobs[row : row + 1], weights[row : row + 1], normaliser=weights.sum())
        for row in (0, 1)
    ]
    assert sum(part.item() for part in parts) == pytest.approx(sft_loss(logprobs, weights).item())


def test_sft_ignores_garbage_and_survives_no_weight():
    logprobs = tensor([[float("-inf"), -0.5], [float("nan"), -1.5]], requires_grad=True)
    loss = sft_loss(logprobs, tensor([[0.0, 1.0], [0.0, 1.0]]))
    loss.backward()
    assert (
        loss.item() == 1.0
        and logprobs.grad is not None
        and logprobs.grad.tolist() == [[0.0, -0.5], [0.0, -0.5]]
    )
    assert sft_loss(tensor([[-1.0]]), tensor([[0.0]])).item() == 0.0


def test_grpo_clips_by_hand():
    # Ratios are clipped to the interval from 0.8 to 1.2.
    #     Advantage 2:   min(1.5*2, 1.2*2) = 2.4   min(0.5*2, 0.8*2) = 1.0    mean 1.7
    #     Advantage -1:  min(-1.5, -1.2) = -1.5    min(-0.5, -0.8) = -0.8     mean -1.15
    loss, stats, gradient = run([[1.5, 0.5], [1.5, 0.5]], [2.0, -1.0])
    assert loss == pytest.approx(-0.275)
    assert stats.loss == pytest.approx(-0.275)
    assert stats.clip_fraction == 0.5 and stats.ratio == pytest.approx(1.0) and stats.tokens == 4
    # The gradient of a token is 0 if the minimum is the clipped term. Otherwise it is
    # -advantage * ratio / 4, because the batch has 4 tokens.
    assert gradient.tolist() == [[0.0, pytest.approx(-2 * 0.5 / 4)], [pytest.approx(1.5 / 4), 0.0]]


def test_each_episode_weighs_the_same_whatever_its_length():
    # The loss averages the tokens of each episode. Episode 1 has one token and contributes 1.
    # Episode 2 has three tokens and contributes -1, not -3.
    loss, stats, gradient = run(
        [[1.0, 9.0, 9.0], [1.0, 1.0, 1.0]],
        [1.0, -1.0],
        mask=[[True, False, False], [True, True, True]],
    )
    assert loss == pytest.approx(0.0) and stats.tokens == 4
    assert gradient.tolist() == [[-0.5, 0.0, 0.0], [pytest.approx(1 / 6)] * 3]


def test_kl_to_the_reference_by_hand():
    # k3, the KL estimate of a token, is r - log r - 1. r is the ratio of the reference policy's
    # probability to the policy's.
    #     r = 2:    2 - log 2 - 1
    #     r = 0.5:  0.5 + log 2 - 1
    loss, stats, gradient = run(
        [[1.0, 1.0]], [0.0], replace(PLAIN, kl_beta=0.05), references=[[2.0, 0.5]]
    )
    # The mean of the two is 0.25.
    assert stats.kl == pytest.approx(0.25) and loss == pytest.approx(0.05 * 0.25)
    # The derivative d k3 / d logprob is 1 - r.
    assert gradient.tolist() == [
        [pytest.approx(0.05 * (1 - 2.0) / 2), pytest.approx(0.05 * (1 - 0.5) / 2)]
    ]


def test_importance_weights_are_truncated_and_carry_no_gradient():
    # The lags 0.5, 1.5 and 8 give the weights 0.5, 1.5 and 2, because a weight is at most 2.
    # Multiplied by the advantage 3, the terms are 1.5, 4.5 and 6, with mean 4.
    loss, stats, gradient = run([[1.0, 1.0, 1.0]], [3.0], lags=[[0.5, 1.5, 8.0]])
    assert loss == pytest.approx(-4.0)
    assert stats.truncated_share == pytest.approx(1 / 3)
    assert stats.behaviour_gap == pytest.approx((math.log(2) + math.log(1.5) + math.log(8)) / 3)
    assert gradient.tolist() == [[pytest.approx(-0.5), pytest.approx(-1.5), pytest.approx(-2.0)]]


def test_synchronous_training_has_weights_of_one():
    _, stats, _ = run([[1.5, 0.5]], [1.0])
    assert stats.truncated_share == 0.0 and stats.behaviour_gap == 0.0


def test_micro_batches_add_up_to_the_whole():
    ratios, advantages = [[1.5, 0.5], [0.9, 1.1]], [2.0, -1.0]
    whole, _, gradient = run(ratios, advantages)
    parts = [
        run(ratios[row : row + 1], advantages[row : row + 1], totals=BatchTotals(2, 4))
        for row in (0, 1)
    ]
    assert sum(part[0] for part in parts) == pytest.approx(whole)
    torch.testing.assert_close(torch.cat([part[2] for part in parts]), gradient)


def test_garbage_outside_the_mask_reaches_nothing():
    mask = tensor([[False, True, False]])
    wild = tensor([[float("nan"), -0.5, float("-inf")]])
    policy = wild.clone().requires_grad_()
    loss, stats = grpo_loss(
        policy, wild, wild, wild, tensor([1.0]), mask, replace(PLAIN, kl_beta=0.1)
    )
    loss.backward()
    assert loss.item() == -1.0 and stats.surprise == 0.5
    assert policy.grad is not None and policy.grad.tolist() == [[0.0, -1.0, 0.0]]


def test_an_episode_without_sampled_tokens_adds_nothing():
    loss, stats, _ = run([[1.0], [1.0]], [1.0, 5.0], mask=[[True], [False]])
    assert loss == pytest.approx(-0.5) and stats.tokens == 1


def test_far_apart_policies_stay_finite():
    far = tensor([[-500.0]])
    loss, _ = grpo_loss(
        far.requires_grad_(),
        far * 0,
        far * 0,
        far * 0,
        tensor([1.0]),
        tensor([[True]]),
        GrpoSettings(),
    )
    assert math.isfinite(loss.item())


def test_k3_is_zero_at_the_reference_and_never_negative():
    policy, reference = -torch.rand(100) * 5, -torch.rand(100) * 5
    assert (k3(policy, reference) >= 0).all() and (k3(policy, policy) == 0).all()


def test_k3_follows_its_tangent_for_tokens_that_are_far_off():
    """Check k3 for logprobs that are 1, 5, 8, 19 and 100 nats below those of the reference."""
    policy = tensor([-1.0, -5.0, -8.0, -19.0, -100.0], requires_grad=True)
    found = k3(policy, torch.zeros(5))
    found.sum().backward()
    slope = math.exp(5) - 1
    at_bound = math.exp(5) - 6
    wanted = [math.e - 2, at_bound, *(at_bound + slope * beyond for beyond in (3, 14, 15))]
    assert found.tolist() == pytest.approx(wanted, rel=1e-5)
    assert policy.grad is not None
    gradients = [1 - math.e, -slope, -slope, -slope, 0.0]
    assert policy.grad.tolist() == pytest.approx(gradients, rel=1e-5)
