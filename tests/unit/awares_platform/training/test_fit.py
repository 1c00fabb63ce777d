"""Tests that a policy directory is refused if its files belong to different models."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from awares.errors import PolicyError
from awares.families.qwen2_5_vl import QWEN2_5_VL
from awares_platform.training import fit

CONFIG = {
    "model_type": "qwen2_5_vl",
    "architectures": ["Qwen2_5_VLForConditionalGeneration"],
    "text_config": {"vocab_size": 320},
    "vision_config": {"patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2},
    "image_token_id": 12,
    "vision_start_token_id": 9,
    "vision_end_token_id": 10,
}
TOKENIZER = {
    "added_tokens": [
        {"content": "<|vision_start|>", "id": 9},
        {"content": "<|vision_end|>", "id": 10},
        {"content": "<|image_pad|>", "id": 12},
    ],
    "model": {"vocab": {"a": 20, "b": 319}},
}
PROCESSOR = {"image_processor": {"patch_size": 14, "merge_size": 2, "temporal_patch_size": 2}}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    for name, content in (
        ("config.json", CONFIG),
        ("tokenizer.json", TOKENIZER),
        ("processor_config.json", PROCESSOR),
    ):
        (tmp_path / name).write_text(json.dumps(content))
    (tmp_path / "model.safetensors").write_bytes(b"")
    return tmp_path


def _edit(path: Path, change: Callable[[Any], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_a_whole_directory_is_accepted(directory: Path) -> None:
    fit.check_directory(directory, QWEN2_5_VL)


def test_the_older_file_name_of_the_processor_is_accepted(directory: Path) -> None:
    (directory / "processor_config.json").unlink()
    (directory / "preprocessor_config.json").write_text(json.dumps(PROCESSOR["image_processor"]))
    fit.check_directory(directory, QWEN2_5_VL)


def test_another_architecture_is_named_with_the_familys(directory: Path) -> None:
    _edit(
        directory / "config.json",
        lambda config: config.update(architectures=["LlavaForConditionalGeneration"]),
    )
    with pytest.raises(
        PolicyError,
        match="a LlavaForConditionalGeneration, but Qwen2.5-VL policies are trained and served",
    ):
        fit.check_directory(directory, QWEN2_5_VL)


def test_a_tokenizer_of_a_larger_model_is_refused(directory: Path) -> None:
    _edit(
        directory / "tokenizer.json",
        lambda tokenizer: tokenizer["model"]["vocab"].update(c=151_000),
    )
    with pytest.raises(PolicyError, match="ids up to 151000, the model only 320 embeddings"):
        fit.check_directory(directory, QWEN2_5_VL)


def test_a_placeholder_with_two_ids_is_refused(directory: Path) -> None:
    _edit(directory / "config.json", lambda config: config.update(image_token_id=151_655))
    with pytest.raises(
        PolicyError,
        match=r"<\|image_pad\|> is id 12 in tokenizer.json but 151655 \(image_token_id\)",
    ):
        fit.check_directory(directory, QWEN2_5_VL)


def test_a_processor_with_other_patches_is_refused(directory: Path) -> None:
    _edit(
        directory / "processor_config.json",
        lambda processor: processor["image_processor"].update(patch_size=16),
    )
    with pytest.raises(
        PolicyError, match="patch_size=16 but config.json's vision_config has patch_size=14"
    ):
        fit.check_directory(directory, QWEN2_5_VL)


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_missing_file_is_named(directory: Path, missing: str) -> None:
    (directory / missing).unlink()
    named = missing.split(".")[0] if missing.endswith("json") else "safetensors"
    with pytest.raises(PolicyError, match=named):
        fit.check_directory(directory, QWEN2_5_VL)


def test_an_unreadable_file_is_named(directory: Path) -> None:
    (directory / "config.json").write_text("{")
    with pytest.raises(PolicyError, match="config.json is unreadable"):
        fit.check_directory(directory, QWEN2_5_VL)


def test_weights_of_another_model_are_named(directory: Path) -> None:
    fit.check_report(
        directory, {"missing_keys": [], "unexpected_keys": set(), "mismatched_keys": []}
    )
    with pytest.raises(PolicyError, match=r"missing keys \['lm_head.weight'\]"):
        fit.check_report(directory, {"missing_keys": ["lm_head.weight"]})
