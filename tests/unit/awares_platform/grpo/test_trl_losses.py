"""Compares losses, gradients and advantages with those of TRL on the same tensors.

tests/benchmarks/trl_losses.py writes TRL's values.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, tensor

from awares.advantage import advantages, batch_divisor
from awares.losses import GrpoSettings, grpo_loss
from awares_platform.config.grpo import GrpoConfig
from awares_platform.grpo.chosen_loss import LOSSES, policy_loss

VALUES = json.loads(Path(__file__).with_name("trl_losses.json").read_text("utf-8"))
LOCK = Path(__file__).parents[3] / "benchmarks" / "trl.txt"
TENSORS = {name: tensor(value) for name, value in VALUES["tensors"].items()}
GROUP = 4
TOLERANCE = 1e-5


def advantages_of(settings: GrpoConfig) -> Tensor:
    rewards = TENSORS["rewards"].tolist()
    groups = [rewards[start : start + GROUP] for start in range(0, len(rewards), GROUP)]
    scale, eps = settings.advantage_scale, settings.std_eps
    found = tensor([value for group in groups for value in advantages(group, eps, scale)])
    return found / batch_divisor(rewards, eps) if scale == "batch" else found


@pytest.mark.parametrize("case", VALUES["cases"], ids=lambda case: json.dumps(case["ours"]))
def test_a_loss_equals_trls(case: dict[str, Any]) -> None:
    settings = GrpoConfig.model_validate(case["ours"])
    loss_settings = GrpoSettings(
        policy_loss(settings), settings.kl_beta, settings.importance, settings.importance_cap
    )
    advantages_B, policy_BT = advantages_of(settings), TENSORS["policy"].clone().requires_grad_()
    kinds = (TENSORS[kind] for kind in ("behaviour", "proximal", "reference"))
    loss, _ = grpo_loss(policy_BT, *kinds, advantages_B, TENSORS["mask"], loss_settings)
    loss.backward()
    assert policy_BT.grad is not None
    near = {"rtol": TOLERANCE, "atol": TOLERANCE}
    torch.testing.assert_close(advantages_B, tensor(case["advantages"]), **near)
    torch.testing.assert_close(loss.detach(), tensor(case["loss"]), **near)
    torch.testing.assert_close(policy_BT.grad, tensor(case["gradient"]), **near)


def test_trls_values_differ_from_case_to_case() -> None:
    """Check that the gradients of any two cases differ by over ten times the tolerance."""
    gradients = [tensor(case["gradient"]) for case in VALUES["cases"]]
    for index, first in enumerate(gradients):
        for second in gradients[:index]:
            assert (first - second).abs().max() > 10 * TOLERANCE


def test_trls_values_cover_every_choice_and_come_from_the_locked_version() -> None:
    assert f"trl=={VALUES['trl']} " in LOCK.read_text("utf-8")
    cases = [GrpoConfig.model_validate(case["ours"]) for case in VALUES["cases"]]
    assert {case.loss for case in cases} == {*LOSSES}
    assert {case.advantage_scale for case in cases} == {"group", "batch", "none"}
    rules = {"token_truncate", "sequence_truncate", "sequence_mask"}
    assert {case.importance for case in cases} == rules
