"""Tests prompts that a setup reads from files, and the error messages for mistakes in the files."""

from pathlib import Path

import pytest

from awares.errors import ConfigError
from awares_platform.config import PlatformConfig, load
from awares_platform.config.curate import CurateConfig
from awares_platform.method.parts import check_parts
from awares_platform.method.prompt_file import (
    PromptText,
    grounding_prompt,
    judge_prompt,
    with_texts,
)
from awares_platform.training.recipe import Recipe, label_recipe

OWN = "Q {question} R {reference} 1 {answer_1} 2 {answer_2} {braces are text}"
ENDPOINT = {"url": "http://judge/v1", "model": "m"}
JUDGE = {"judge": "endpoint", "judge_endpoint": ENDPOINT, "both_wrong": "LR"}


def curate(**changes: object) -> CurateConfig:
    return CurateConfig.model_validate(JUDGE | changes)


def test_a_built_in_prompt_has_a_system_message_and_the_case() -> None:
    values = {"question": "{answer_1}?", "reference": "7", "answer_1": "one", "answer_2": "seven"}
    system, user = judge_prompt(curate()).messages(values)
    assert system["role"] == "system" and '{"verdict": digit}' in system["content"]
    assert user == {
        "role": "user",
        "content": (
            "Question: {answer_1}?\nReference answer: 7\nAnswer 1: one\nAnswer 2: seven\nVerdict:"
        ),
    }
    assert grounding_prompt(curate()).fill({"question": "Why?"}).endswith("\n\nQuestion: Why?")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"curate\.judge_prompt=.*own\.txt cannot be read \(.*No such file.*\)"),
        (OWN.replace("{reference}", ""), r"own\.txt lacks the placeholder \{reference\}"),
        (f"{OWN} {{truth}}", r"own\.txt has the placeholder \{truth\}, .* use \{question\}, "),
    ],
)
def test_a_job_names_the_mistake_in_a_prompt_before_it_starts(
    tmp_path: Path, text: str | None, message: str
) -> None:
    path = tmp_path / "own.txt"
    if text is not None:
        path.write_text(text)
    setup = [f"curate.{key}={value}" for key, value in JUDGE.items() if isinstance(value, str)]
    setup += [f"curate.judge_endpoint.{key}={value}" for key, value in ENDPOINT.items()]
    config = load("mini", [*setup, f"curate.judge_prompt={path}"])
    with pytest.raises(ConfigError, match=message):
        check_parts("curate", config)
    check_parts("sft", config)


def test_the_text_and_not_the_place_of_a_prompt_is_in_the_recipe(tmp_path: Path) -> None:
    def recipe(chosen: str) -> Recipe:
        config = PlatformConfig(curate=curate(judge_prompt=chosen))
        return label_recipe(config.method, config.engine, config.curate, "")

    one, other = tmp_path / "one.txt", tmp_path / "other.txt"
    one.write_text(OWN)
    other.write_text(f"{OWN}\n")
    pinned = with_texts(curate(judge_prompt=str(one)))
    assert judge_prompt(pinned) == PromptText(OWN)
    assert recipe(str(one)) == recipe(str(other)) == recipe(pinned.judge_prompt) != recipe("")
    other.write_text(f"{OWN}!")
    assert recipe(str(one)) != recipe(str(other))
