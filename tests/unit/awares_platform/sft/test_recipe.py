"""Tests which settings change the recipe of an sft job."""

import pytest

from awares.whole_image import WholeImage
from awares_platform.config.setup import load
from awares_platform.sft.job import recipe_of

DATA = {"rows": 40}


def recipe(*overrides: str) -> dict[str, object]:
    return recipe_of(load("mini", overrides), "9f2c", DATA)


def test_another_prompt_of_the_environment_is_another_recipe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = ("method.environment=awares.whole_image:WholeImage", "method.system_prompt=awares")
    before = recipe(*whole)
    monkeypatch.setattr(WholeImage, "system_prompt", "Say ZOOM.")
    assert recipe(*whole) != before


@pytest.mark.parametrize(
    "override",
    [
        "sft.micro_tokens=512",
        "sft.micro_batch=8",
        "sft.workers=2",
        "sft.threads=2",
        "sft.zero_stage=3",
        "sft.max_skipped_steps=9",
        "policy.gradient_checkpointing=true",
        "policy.attn=eager",
        "engine.threads=2",
        "data.image_cache=/scratch",
    ],
)
def test_settings_that_change_no_result_leave_the_recipe_alone(override: str) -> None:
    assert recipe(override) == recipe()


def test_every_other_setting_of_sft_and_policy_is_in_the_recipe() -> None:
    assert {key for key in recipe() if key.startswith(("sft.", "policy."))} == {
        "sft.epochs",
        "sft.learning_rate",
        "sft.warmup_ratio",
        "sft.weight_decay",
        "sft.max_grad_norm",
        "sft.tool_turn_weight",
        "sft.batch_size",
        "policy.base",
        "policy.family",
        "policy.dtype",
        "policy.lora_rank",
        "policy.lora_alpha",
        "policy.lora_targets",
        "policy.train_vision",
    }
