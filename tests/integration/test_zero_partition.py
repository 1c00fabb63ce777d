"""Tests that two ranks can each load a part of a policy under ZeRO-3, with unchanged results.

The policies are so large that their weights dominate the memory of a rank.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    PreTrainedTokenizerBase,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from awares.mini.policy import build_config, build_processor, save_policy
from awares.mini.tokenizer import train_tokenizer
from awares_platform.cli.doctor.trainee import Trainee
from awares_platform.config import PlatformConfig
from awares_platform.config.policy import PolicyConfig
from awares_platform.engine.canary import learner_logprobs
from awares_platform.method.family import model_family
from awares_platform.training.policy import load_policy
from tests.integration.ranks import run_ranks

pytestmark = [pytest.mark.slow, pytest.mark.integration]
RANKS = 2


@dataclass(frozen=True)
class Case:
    """A policy and the settings of its training. `base` is the name of the policy's directory."""

    base: str
    lora_rank: int = 0
    dtype: str = "float32"
    family: str = "awares.families.qwen2_5_vl:Qwen25VL"


CASES = {
    "full": Case("base"),
    "lora": Case("base", lora_rank=4),
    "tied": Case("tied", dtype="bfloat16", family="awares.families.qwen3_vl:Qwen3VL"),
}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the policies of CASES, and a small policy of each family.

    The ranks load the small policy first, before they measure memory.
    """
    found, tokenizer = tmp_path_factory.mktemp("ranks"), train_tokenizer()
    for name, width in (("base", 32_768), ("small-base", 64)):
        config: Any = build_config(tokenizer)
        config.text_config.intermediate_size = width
        torch.manual_seed(0)
        save_policy(Qwen2_5_VLForConditionalGeneration(config), tokenizer, found / name)
    for name, width in (("tied", 32_768), ("small-tied", 64)):
        torch.manual_seed(0)
        save_tied(found / name, width, tokenizer)
    return found


def save_tied(path: Path, width: int, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write a Qwen3-VL in bfloat16, in several files. Embeddings and head share one tensor."""
    base = build_config(tokenizer)
    text: Any = base.text_config
    config = Qwen3VLConfig(
        text_config={
            "vocab_size": text.vocab_size,
            "hidden_size": text.hidden_size,
            "intermediate_size": width,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "rope_parameters": {**text.rope_parameters, "mrope_interleaved": True},
        },
        vision_config={
            "depth": 2,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_heads": 2,
            "patch_size": 14,
            "out_hidden_size": text.hidden_size,
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0],
        },
        image_token_id=base.image_token_id,
        video_token_id=base.video_token_id,
        vision_start_token_id=base.vision_start_token_id,
        vision_end_token_id=base.vision_end_token_id,
        tie_word_embeddings=True,
    )
    model: Any = Qwen3VLForConditionalGeneration(config)
    model.to(torch.bfloat16).save_pretrained(path, max_shard_size="20MB")
    build_processor(tokenizer).save_pretrained(path)


def run(directory: Path, case: Case, mode: str) -> list[dict[str, Any]]:
    """Run two ranks of loading_rank, and return their measurements."""
    out = directory / f"{case.base}-{case.lora_rank}-{mode}"
    settings = [case.base, str(case.lora_rank), case.dtype, case.family, mode]
    return measured("loading_rank", directory, out, *settings)


def measured(module: str, directory: Path, out: Path, *settings: str) -> list[dict[str, Any]]:
    """Run two ranks of `module`, which write to `out`, and return their measurements."""
    out.mkdir()
    # The C library returns a freed tensor to the kernel at once if it is larger than this number of
    # bytes. The measured memory is then close to that of the live tensors.
    memory = {"MALLOC_MMAP_THRESHOLD_": "65536"}
    run_ranks(module, RANKS, str(directory), str(out), *settings, **memory)
    return [json.loads((out / f"{rank}.json").read_text()) for rank in range(RANKS)]


@pytest.mark.parametrize("name", CASES)
def test_each_rank_loads_its_part_and_trains_as_before(directory: Path, name: str) -> None:
    case = CASES[name]
    whole, parts = (run(directory, case, mode) for mode in ("whole", "partitioned"))
    family = model_family(PolicyConfig(family=case.family))
    stored = {
        family.current_name(name): tensor
        for file in (directory / case.base).glob("*.safetensors")
        for name, tensor in load_file(file).items()
    }
    dtype: torch.dtype = getattr(torch, case.dtype)
    size = dtype.itemsize * sum(tensor.numel() for tensor in stored.values())
    print(size, [(one["load"], one["reference"]) for one in (*whole, *parts)])
    for before, now in zip(whole, parts, strict=True):
        # In bfloat16, transformers maps the file into memory, and mapped pages do not count here.
        assert case.dtype == "bfloat16" or before["load"] > 0.95 * size
        # A rank holds half of the weights. During the load, it also holds one whole tensor in two
        # data types.
        assert now["load"] < 0.75 * size
        assert now["reference"] < 0.75 * size
        assert case.lora_rank or before["reference"] > 0.95 * size
        assert now["losses"] == before["losses"] and now["losses"][1] == now["losses"][2]
        assert now.get("reference_loss") == before.get("reference_loss")
        assert now.get("reference_loss_later") == now.get("reference_loss")
        assert now["buffers"] == before["buffers"]
    assert parts[0]["resumes"] and whole[0]["resumes"]
    assert ("reference_loss" in parts[0]) == (case.lora_rank == 0)
    for moment in ("before", "after"):
        expected, found = (
            torch.load(directory / f"{case.base}-{case.lora_rank}-{mode}" / f"{moment}.pt")
            for mode in ("whole", "partitioned")
        )
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)
        if moment == "before":
            assert all(torch.equal(found[name], stored[name].to(dtype)) for name in stored)


def test_the_doctor_loads_a_part_on_each_rank(directory: Path) -> None:
    """The doctor must need as little memory as the grpo job, whose ranks load only their parts."""
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(
        directory / "base", dtype=torch.float32
    ).eval()
    size = sum(tensor.numel() * tensor.itemsize for tensor in model.state_dict().values())
    found = measured("doctor_rank", directory, directory / "doctor")
    print(size, [one["load"] for one in found])
    assert all(one["load"] < 0.75 * size for one in found)
    adapted = load_policy(directory / "base", PolicyConfig(lora_rank=4), 0)
    trained = sum(tensor.numel() for tensor in adapted.parameters() if tensor.requires_grad)
    config = PlatformConfig.model_validate({"engine": {"dtype": "float32"}})
    whole = Trainee(config, directory / "base", torch.device("cpu"))
    # A new adapter changes nothing, so the logprobs must equal the logprobs of the base policy.
    wanted = learner_logprobs(model, whole._processor, whole._canary, torch.device("cpu"))
    for one in found:
        assert one["trained"] == trained
        for logprobs, exact in zip(one["logprobs"], wanted, strict=True):
            assert logprobs == pytest.approx(exact, abs=1e-4)
