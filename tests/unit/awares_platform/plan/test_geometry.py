"""Tests the parameter counts and the KV cache bytes that the plan computes from a model's sizes.

The expected values are published numbers, hand computations, and the sizes in a checkpoint.
"""

import json
from pathlib import Path

import pytest

from awares.errors import ConfigError, PolicyError
from awares.families.qwen2_5_vl import QWEN2_5_VL
from awares.families.qwen3_vl import Qwen3VL
from awares.mini import POLICY
from awares_platform.plan.geometry import KNOWN, geometry


@pytest.mark.parametrize(
    ("size", "parameters"),
    [
        ("3B", 3_754_622_976),
        ("7B", 8_292_166_656),
        ("32B", 33_452_718_336),
        ("72B", 73_410_777_344),
    ],
)
def test_released_sizes_have_their_published_parameters(size: str, parameters: int) -> None:
    assert geometry(f"Qwen/Qwen2.5-VL-{size}-Instruct", QWEN2_5_VL).parameters == parameters


def test_the_shipped_policy_has_the_parameters_of_its_file() -> None:
    from safetensors import safe_open

    with safe_open(Path(POLICY) / "model.safetensors", "pt") as file:
        stored = {name: file.get_tensor(name).numel() for name in file.keys()}
    shape = geometry("mini", QWEN2_5_VL)
    assert shape.parameters == sum(stored.values())
    assert shape.vision_parameters == sum(size for name, size in stored.items() if "visual" in name)


def test_kv_bytes_of_the_7b() -> None:
    assert KNOWN["7B"].kv_bytes(2) == 2 * 28 * 4 * 128 * 2 == 57_344


def test_adapters_of_the_7b_at_rank_8() -> None:
    attention = (3584 + 3584) + (3584 + 512) * 2 + (3584 + 3584)
    mlp = 3 * (3584 + 18944)
    targets = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    assert KNOWN["7B"].adapter_parameters(8, targets) == 8 * 28 * (attention + mlp) == 20_185_088
    assert KNOWN["7B"].adapter_parameters(2, ("v_proj",)) == 2 * 28 * (3584 + 512)


def test_the_flat_layout_of_older_files_is_read_too(tmp_path: Path) -> None:
    config = json.loads((Path(POLICY) / "config.json").read_text())
    flat = {**config.pop("text_config"), **config}
    (tmp_path / "config.json").write_text(json.dumps(flat))
    assert geometry(str(tmp_path), QWEN2_5_VL) == geometry("mini", QWEN2_5_VL)


def test_an_unknown_base_or_a_broken_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError,
        match=r"policy.base=Qwen/Qwen2.5-VL-5B-Instruct: no geometry is known for it; "
        "give a local directory",
    ):
        geometry("Qwen/Qwen2.5-VL-5B-Instruct", QWEN2_5_VL)
    with pytest.raises(ConfigError, match=r"policy.base=s3://awares/base"):
        geometry("s3://awares/base", QWEN2_5_VL)
    with pytest.raises(PolicyError, match="config.json is missing"):
        geometry(str(tmp_path), QWEN2_5_VL)
    (tmp_path / "config.json").write_text('{"model_type": "qwen3_vl"}')
    with pytest.raises(
        PolicyError, match="model_type 'qwen3_vl', but policy.family expects 'qwen2_5_vl'"
    ):
        geometry(str(tmp_path), QWEN2_5_VL)
    (tmp_path / "config.json").write_text('{"model_type": "qwen2_5_vl", "hidden_size": 8}')
    with pytest.raises(PolicyError, match="config.json lacks a size of a Qwen2.5-VL"):
        geometry(str(tmp_path), QWEN2_5_VL)
    with pytest.raises(ConfigError, match="policy.family is Qwen3-VL, but a plan can be made for"):
        geometry("mini", Qwen3VL())
    with pytest.raises(
        ConfigError,
        match=r"policy.lora_targets names 'proj', which no decoder layer has; choose from q_proj",
    ):
        KNOWN["7B"].adapter_parameters(8, ("proj",))
