"""Tests that a policy keeps its prompts and image sizes, and is refused with any others."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

from awares.errors import PolicyError
from awares.families.qwen2_5_vl import QWEN2_5_VL
from awares.mini.policy import build_model, save_policy
from awares.mini.tokenizer import train_tokenizer
from awares.whole_image import WholeImage
from awares_platform.config.method import MethodConfig
from awares_platform.method.environment import system_prompt
from awares_platform.training import inputs
from awares_platform.training.export import write_policy
from awares_platform.training.policy import interface, load_processor

METHOD = MethodConfig(min_pixels=3136, max_pixels=200_704, low_ratio=0.4)
PAGE = Image.new("RGB", (850, 1100), "white")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a policy whose tensors have the names of Qwen2.5-VL's published checkpoints."""
    directory, tokenizer = tmp_path_factory.mktemp("base"), train_tokenizer()
    save_policy(build_model(tokenizer, seed=0), tokenizer, directory)
    weights = directory / "model.safetensors"
    older = {
        name.replace("model.visual.", "visual.").replace("model.language_model.", "model."): tensor
        for name, tensor in load_file(weights).items()
    }
    assert {name.split(".")[0] for name in older} >= {"visual", "model"}
    save_file(older, weights, metadata={"format": "pt"})
    return directory


@pytest.fixture(scope="module")
def exported(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("exported")
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(base)
    state = {name: tensor.detach() + 1 for name, tensor in model.named_parameters()}
    write_policy(state, base, directory, QWEN2_5_VL, METHOD)
    return directory


def test_other_tools_make_the_tokens_of_the_training(base: Path, exported: Path) -> None:
    trained = load_processor(base, QWEN2_5_VL, METHOD.min_pixels, METHOD.max_pixels)
    plain = AutoProcessor.from_pretrained(exported, local_files_only=True)
    grids = [
        one.image_processor(images=[PAGE], return_tensors="pt")["image_grid_thw"].tolist()
        for one in (trained, plain)
    ]
    assert grids[0] == grids[1]
    pixels = grids[0][0][1] * grids[0][0][2] * 14**2
    assert 0.8 * METHOD.max_pixels < pixels <= METHOD.max_pixels


def test_weights_have_the_names_of_the_base(base: Path, exported: Path) -> None:
    names = [load_file(path / "model.safetensors").keys() for path in (base, exported)]
    assert names[0] == names[1]
    read = Qwen2_5_VLForConditionalGeneration.from_pretrained(exported)
    before = Qwen2_5_VLForConditionalGeneration.from_pretrained(base).state_dict()
    for name, tensor in read.named_parameters():
        assert torch.equal(tensor, before[name] + 1), name


def test_the_settings_of_the_training_are_recorded_and_held(exported: Path) -> None:
    recorded = json.loads((exported / "awares.json").read_text())["method"]
    assert recorded["low_ratio"] == 0.4 and recorded["max_pixels"] == 200_704
    assert {"system_prompt", "environment", "views", "max_visual_tokens"} <= recorded.keys()
    inputs.check(exported, METHOD.model_copy(update={"answer_weight": 1.0}))
    other = METHOD.model_copy(update={"low_ratio": 0.5, "system_prompt": "Look."})
    with pytest.raises(PolicyError, match=r'method\.system_prompt = "" \(here "Look\."\)') as error:
        inputs.check(exported, other)
    assert "method.low_ratio = 0.4 (here 0.5)" in str(error.value)


def test_the_prompt_of_an_environment_travels_with_the_policy(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Check that a policy records the text of its system prompt.

    `inputs.check` then refuses the policy if the environment's prompt has changed since training.
    """
    method = MethodConfig(
        environment="awares.whole_image:WholeImage", system_prompt="awares", max_crops=1
    )
    inputs.write(tmp_path, QWEN2_5_VL, method)
    trained = inputs.recorded(tmp_path, MethodConfig())
    assert trained.system_prompt == system_prompt(method) != "awares"
    inputs.check(tmp_path, method)
    monkeypatch.setattr(WholeImage, "system_prompt", "Say ZOOM.")
    assert system_prompt(trained).startswith("You see a small version")
    with pytest.raises(PolicyError, match=r'method\.system_prompt = "You see.*here "Say ZOOM\.'):
        inputs.check(tmp_path, method)


def test_a_policy_without_a_record_is_not_checked_and_a_damaged_record_is_named(
    base: Path, exported: Path, tmp_path: Path
) -> None:
    inputs.check(base, METHOD)
    for text in ("{", "[]", '{"method": 3}', "{}"):
        (tmp_path / "awares.json").write_text(text)
        with pytest.raises(PolicyError, match=r"awares\.json is damaged"):
            inputs.check(tmp_path, METHOD)


def test_bounds_do_not_make_another_interface(base: Path, exported: Path, tmp_path: Path) -> None:
    assert interface(base) == interface(exported)
    for file in exported.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    [processor] = [tmp_path / name for name in inputs.PROCESSOR_FILES if (tmp_path / name).exists()]
    content = json.loads(processor.read_text())
    section = inputs.image_processor(processor, content)
    assert section is not None
    section["patch_size"] = 16
    processor.write_text(json.dumps(content))
    assert interface(tmp_path)[0] != interface(base)[0]
    assert interface(tmp_path)[1] == interface(base)[1]
