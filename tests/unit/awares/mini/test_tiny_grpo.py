"""Tests the logprobs, the advantages and the learning progress of GRPO in one process."""

import copy
import random
import sys

import pytest
import torch

import awares
from awares.mini import tiny_grpo
from awares.mini.tiny_grpo import TinyPolicy, descend, group_advantages, grpo, rollout, step_loss

QUESTIONS = GROUP = 4


@pytest.fixture(scope="module")
def pool_and_asker():
    """Return 32 questions, and a policy that asks for crops in some of its episodes."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    random.seed(0)
    policy = TinyPolicy()
    pool = policy.questions("train", 32, seed=0)
    tiny_grpo.warm_up(policy, pool, 8)
    return pool, policy


@pytest.fixture
def pool(pool_and_asker):
    return pool_and_asker[0]


@pytest.fixture
def asker(pool_and_asker, monkeypatch):
    """Return a copy of the policy that a test may train. Reduce each step to 4 x 4 episodes."""
    monkeypatch.setattr(tiny_grpo, "QUESTIONS", QUESTIONS)
    monkeypatch.setattr(tiny_grpo, "GROUP", GROUP)
    torch.manual_seed(1)
    random.seed(1)
    policy = copy.copy(pool_and_asker[1])
    policy.model = copy.deepcopy(policy.model)
    return policy


def episodes_of(policy, samples):
    return rollout(policy, samples, Preference(asks=True))[0]


class Preference:
    """A reward of 1 for the episodes that ask for crops, and of 0 for the others.

    `asks=False` exchanges the two values.
    """

    def __init__(self, asks: bool) -> None:
        self._asks = asks

    def __call__(self, episodes, samples):
        return [
            awares.RewardValue(float(bool(episode.crops) is self._asks), {}) for episode in episodes
        ]


def test_half_of_the_questions_need_crops(pool):
    assert len(pool) == 32
    assert [sample.label for sample in pool].count(awares.Label.HR) == 16


def test_the_sampler_and_the_learner_agree_on_logprobs(asker, pool):
    episodes = episodes_of(asker, pool)
    batch = asker.batch(episodes)

    with torch.no_grad():
        logprobs_BT = asker.logprobs(batch, asker.model)

    assert {len(episode.turns) for episode in episodes} == {1, 2}
    mask_BT = batch.action_mask_BT
    torch.testing.assert_close(
        logprobs_BT[mask_BT], batch.behaviour_logprobs_BT[mask_BT], atol=2e-5, rtol=0
    )


def test_one_call_of_the_model_serves_all_running_episodes(asker, pool, monkeypatch):
    sizes: list[int] = []
    generate = asker.model.generate

    def counted(**inputs):
        sizes.append(len(inputs["input_ids"]))
        return generate(**inputs)

    monkeypatch.setattr(asker.model, "generate", counted)
    episodes = episodes_of(asker, pool)

    assert sizes == [len(pool), sum(len(episode.turns) == 2 for episode in episodes)]


def test_a_failing_model_ends_the_loop(asker, pool, monkeypatch):
    def fail(**_):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(asker.model, "generate", fail)

    with pytest.raises(awares.PolicyError, match="32 episodes failed.*out of memory"):
        episodes_of(asker, pool)


def test_advantages_compare_episodes_of_one_question():
    assert tiny_grpo.GROUP == 8
    rewards_B = [1.0] * 8 + [0.0] * 4 + [2.0] * 4

    advantages_B = group_advantages(rewards_B)

    assert advantages_B[:8] == [0.0] * 8
    assert advantages_B[8:] == awares.advantages(rewards_B[8:])


@pytest.mark.parametrize(("rewards_G", "learns"), [([3.0] * 4, False), ([3.0, 5.0] * 2, True)])
def test_a_group_with_equal_rewards_gives_no_gradient(asker, pool, rewards_G, learns):
    episodes = episodes_of(asker, [pool[0]] * GROUP)
    reference = copy.deepcopy(asker.model)

    loss, _ = step_loss(asker, reference, episodes, group_advantages(rewards_G))
    loss.backward()

    gradients = [weight.grad for weight in asker.model.parameters() if weight.grad is not None]
    assert any(bool(gradient.any()) for gradient in gradients) is learns


def test_updates_lower_the_loss_of_their_batch(asker, pool):
    samples = [sample for sample in pool[-QUESTIONS:] for _ in range(GROUP)]
    episodes = episodes_of(asker, samples)
    rewards_B = [sum(turn.logprobs[0] for turn in episode.turns) for episode in episodes]
    reference = copy.deepcopy(asker.model)
    optimizer = torch.optim.AdamW(asker.model.parameters(), tiny_grpo.GRPO_RATE)

    losses = []
    for _ in range(8):
        loss, _ = step_loss(asker, reference, episodes, group_advantages(rewards_B))
        descend(optimizer, loss)
        losses.append(loss.item())

    assert losses[-1] < losses[0] - 0.01, losses


@pytest.mark.parametrize("asks", [True, False])
def test_the_policy_learns_what_the_reward_prefers(asker, pool, asks):
    figures = list(grpo(asker, pool, Preference(asks), steps=12))

    rewards = [row["reward"] for row in figures]
    assert rewards[0] < 0.76
    assert sum(rewards[-2:]) / 2 > 0.8
    assert figures[-1]["calls"] == (rewards[-1] if asks else 1 - rewards[-1])


def test_the_same_seed_gives_the_same_numbers(pool_and_asker, asker):
    pool = pool_and_asker[0]
    twin, other = copy.copy(asker), copy.copy(asker)
    twin.model, other.model = copy.deepcopy(asker.model), copy.deepcopy(asker.model)

    rows = []
    for policy, seed in ((asker, 5), (twin, 5), (other, 6)):
        torch.manual_seed(seed)
        random.seed(seed)
        rows.append(list(grpo(policy, pool, awares.CropReward("exact"), steps=2)))
        for row in rows[-1]:
            del row["seconds"]

    assert rows[0] == rows[1]
    assert rows[0] != rows[2]


def test_the_command_prints_a_line_for_each_step(monkeypatch, capsys):
    for name, value in {"QUESTIONS": 2, "WARM_UP": 2, "POOL": 4, "HELD_OUT": 4}.items():
        monkeypatch.setattr(tiny_grpo, name, value)
    monkeypatch.setattr(sys, "argv", ["tiny_grpo", "--steps", "2"])

    tiny_grpo.main()

    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["before", "step 1", "step 2", "after"]
    assert all(name in lines[1] for name in ("reward", "accuracy", "RTR", "calls", "KL", "seconds"))
