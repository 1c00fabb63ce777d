"""Tests that the configured environment is built with its settings."""

from pathlib import Path

import pytest

from awares.budget import budget_text
from awares.errors import ConfigError
from awares.families.qwen2_5_vl import QWEN2_5_VL
from awares.protocol import SYSTEM_PROMPT
from awares.ten_crops import TenCrops
from awares.view import View
from awares.view_rule import ViewRule
from awares.whole_image import WholeImage
from awares_platform.config.method import MethodConfig
from awares_platform.config.setup import load
from awares_platform.method.environment import (
    base_prompt,
    environment,
    episode_spec,
    greedy,
    system_prompt,
)

WHOLE = "awares.whole_image:WholeImage"


def test_the_ten_crops_take_the_methods_values() -> None:
    method = MethodConfig(allow_all=False, mapping="coverage", coverage_tau=0.5, max_turns=1)
    expected = TenCrops(allow_all=False, mapping="coverage", coverage_tau=0.5, max_turns=1)
    assert environment(method) == expected
    assert environment(MethodConfig()) == TenCrops()


def test_the_environment_takes_the_rule_of_the_views() -> None:
    method = MethodConfig.model_validate(
        {"views": "paper", "crop_scale": "none", "max_pixels": 50_176}
    )
    assert environment(method) == TenCrops(rule=ViewRule("paper", None, 50_176))
    large = MethodConfig(max_pixels=50_176, environment=WHOLE)
    assert environment(large).first_view((448, 448)) == View(None, 0.5)


def test_another_environment_is_named_in_the_configuration() -> None:
    method = MethodConfig(environment=WHOLE, max_turns=1, low_ratio=0.25)
    assert isinstance(environment(method), WholeImage)
    spec = episode_spec(method, QWEN2_5_VL, greedy(8))
    assert isinstance(spec.environment, WholeImage) and spec.environment.max_turns == 1
    assert (spec.low_ratio, spec.sampling.max_tokens) == (0.25, 8)


def test_the_name_of_the_prompt_stands_for_the_environments_own() -> None:
    own = MethodConfig(system_prompt="awares", max_crops=2, max_visual_tokens=300)
    assert system_prompt(own) == f"{SYSTEM_PROMPT} {budget_text(300, 2)}"
    whole = MethodConfig(system_prompt="awares", environment=WHOLE)
    assert system_prompt(whole) == f"{WholeImage().system_prompt} {budget_text(512, 10)}"
    assert system_prompt(MethodConfig(system_prompt="Look.", environment=WHOLE)) == "Look."
    assert system_prompt(MethodConfig()) == ""


def test_an_override_of_a_runs_configuration_changes_the_stated_budget(tmp_path: Path) -> None:
    """Check that the system prompt states the budget that the overrides set.

    A policy whose prompt states another budget would write malformed requests.
    """
    recorded = tmp_path / "config.json"
    recorded.write_text(load("awares-7b").model_dump_json())
    budget = ["method.max_crops=3", "method.max_visual_tokens=3000"]
    for overrides, stated in ((budget, (3000, 3)), ([], (4096, 4))):
        prompt = system_prompt(load(recorded, overrides).method)
        assert prompt == f"{SYSTEM_PROMPT} {budget_text(*stated)}"


def test_base_policies_use_the_models_template_unless_a_prompt_is_set() -> None:
    """A base policy gets the system prompt of its chat template, unless a setting replaces it."""

    class Tokenizer:
        chat_template = "of the model"

        def apply_chat_template(self, *_: object, **__: object) -> str:
            return (
                "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
                "<|vision_start|><|image_pad|><|vision_end|>awares<|im_end|>\n"
                "<|im_start|>assistant\n"
            )

    def prompt(method: MethodConfig) -> str:
        return base_prompt(method, Tokenizer(), QWEN2_5_VL)

    assert prompt(load("awares-7b").method) == "You are a helpful assistant."
    assert prompt(MethodConfig(base_prompt="Answer.")) == "Answer."
    assert prompt(MethodConfig.model_validate({"base_prompt": "none"})) == ""


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("no_such_module:Part", {}, "method.environment = 'no_such_module:Part'"),
        ("awares.view:View", {}, "is no Environment: it lacks"),
        (WHOLE, {"zoom": 2}, "method.environment_settings.zoom"),
    ],
)
def test_a_mistake_names_its_key(name: str, settings: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        environment(MethodConfig(environment=name, environment_settings=settings))
