"""Tests that [grpo] refuses settings that contradict the chosen policy loss."""

import inspect
import re
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from awares.losses import Cispo, ClipHigher, Dapo, DrGrpo, Grpo, Gspo, ImportanceRule, PolicyLoss
from awares_platform.config.grpo import GrpoConfig
from awares_platform.config.loss_choice import PARAMETERS
from awares_platform.grpo.chosen_loss import LOSSES, policy_loss


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({}, Grpo(clip=0.2)),
        ({"clip": 0.1}, Grpo(clip=0.1)),
        ({"loss": "clip_higher", "minibatches": 2}, ClipHigher(0.2, 0.28)),
        ({"loss": "clip_higher", "proximal": "behaviour", "clip_high": 0.3}, ClipHigher(0.2, 0.3)),
        ({"loss": "dr_grpo", "advantage_scale": "none", "max_tokens": 7}, DrGrpo(7, 0.2)),
        ({"loss": "dr_grpo", "advantage_scale": "none", "loss_length": 9}, DrGrpo(9, 0.2)),
        ({"loss": "dapo", "clip": 0.1}, Dapo(0.1, 0.28)),
        ({"loss": "gspo", "minibatches": 4}, Gspo(3e-4, 4e-4)),
        ({"loss": "cispo"}, Cispo(5.0)),
        ({"loss": "cispo", "ratio_cap": 2}, Cispo(2.0)),
    ],
)
def test_a_loss_is_built_from_its_keys(settings: dict[str, Any], wanted: PolicyLoss) -> None:
    config = GrpoConfig.model_validate(settings)
    assert policy_loss(config) == wanted
    # A resumed run reads its resolved configuration back from JSON.
    assert GrpoConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "ppo"}, "Input should be 'grpo', 'clip_higher', 'dr_grpo'"),
        (
            {"clip_high": 0.28},
            "grpo.clip_high = 0.28 has no effect with grpo.loss = 'grpo', which takes grpo.clip: "
            "set grpo.clip_high to 'none', or take a loss that has it: clip_higher, dapo, gspo",
        ),
        (
            {"loss": "cispo", "clip": 0.2},
            "grpo.clip = 0.2 has no effect with grpo.loss = 'cispo', which takes grpo.ratio_cap",
        ),
        (
            {"loss": "dapo", "loss_length": 9},
            "which takes grpo.clip and grpo.clip_high: set grpo.loss_length to 'none', or take a "
            "loss that has it: dr_grpo",
        ),
        ({"loss": "cispo", "ratio_cap": 0.5}, "greater than or equal to 1"),
        (
            {"loss": "dr_grpo"},
            "grpo.loss = 'dr_grpo' does not divide advantages, and grpo.advantage_scale = 'group' "
            "does: set grpo.advantage_scale = 'none'",
        ),
        (
            {"loss": "gspo"},
            "grpo.loss = 'gspo' equals 'grpo' with grpo.minibatches = 1, because no ratio differs "
            "from 1: raise grpo.minibatches, or set grpo.proximal = 'behaviour'",
        ),
        ({"loss": "clip_higher"}, "grpo.loss = 'clip_higher' equals 'grpo'"),
        (
            {"proximal": "behaviour", "importance": "sequence_mask"},
            "grpo.importance = 'sequence_mask' has no effect with grpo.proximal = 'behaviour', "
            "because all weights are 1: remove one of the two",
        ),
    ],
)
def test_a_contradiction_is_one_error_with_its_remedy(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=re.escape(message)) as raised:
        GrpoConfig.model_validate(settings)
    assert len(raised.value.errors()) == 1


def test_each_loss_has_its_parameters_as_keys() -> None:
    choices = get_args(GrpoConfig.model_fields["loss"].annotation)
    assert {*choices} == LOSSES.keys() == PARAMETERS.keys()
    found = {name: {*inspect.signature(loss).parameters} for name, loss in LOSSES.items()}
    assert found == {name: {*keys} for name, keys in PARAMETERS.items()}


def test_the_rules_for_importance_weights_are_those_of_the_method() -> None:
    assert GrpoConfig.model_fields["importance"].annotation == ImportanceRule


@pytest.mark.parametrize(
    ("settings", "needed"),
    [({}, False), ({"minibatches": 2}, True), ({"minibatches": 2, "proximal": "behaviour"}, False)],
)
def test_only_a_decoupled_step_with_several_updates_scores_the_proximal_policy(
    settings: dict[str, Any], needed: bool
) -> None:
    assert GrpoConfig.model_validate(settings).scores_proximal is needed
