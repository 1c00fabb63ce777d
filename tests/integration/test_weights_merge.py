"""Tests that `awares weights merge` writes the same policy as peft's own merge.

peft adds the adapter to the base in float32. The test then rounds the sum to bfloat16.
"""

import json
import uuid
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration

from awares.errors import ConfigError, PolicyError
from awares.families.qwen2_5_vl import QWEN2_5_VL as FAMILY
from awares.mini import POLICY
from awares.mini.policy import build_config, save_policy
from awares.mini.tokenizer import train_tokenizer
from awares_platform.cli import weights
from awares_platform.config import PlatformConfig
from awares_platform.config.method import MethodConfig
from awares_platform.engine.exported import playable
from awares_platform.evaluate.job import check_policies
from awares_platform.store import ObjectStore
from awares_platform.training import inputs, lora
from awares_platform.training.export import (
    adapter_key,
    export_adapter,
    export_policy,
    read_meta,
)
from awares_platform.weights.adapter import UP, is_adapter
from awares_platform.weights.checkpoint import Checkpoint

pytestmark = pytest.mark.integration

TRAINED = MethodConfig(max_pixels=401_408, low_ratio=0.4)
SCALE = 2.0
Policy = Qwen2_5_VLForConditionalGeneration


def tied_policy(directory: Path) -> Path:
    """Write a policy whose output head shares its tensor with the embedding."""
    directory.mkdir()
    tokenizer = train_tokenizer()
    config: Any = build_config(tokenizer)
    config.tie_word_embeddings = config.text_config.tie_word_embeddings = True
    torch.manual_seed(0)
    model: Any = Policy(config).eval()
    save_policy(model.to(torch.bfloat16), tokenizer, directory)
    return directory


def random_adapter(base: Path) -> dict[str, Tensor]:
    """Return LoRA matrices A and B for each linear layer of the language model.

    The values of B are random. LoRA starts with B = 0, and such an adapter would change nothing.
    """
    model: Any = Policy.from_pretrained(base, dtype=torch.float32)
    lora.attach(model, FAMILY, 8, 8 * SCALE, (), seed=0)
    torch.manual_seed(1)
    return {
        name: (torch.randn_like(tensor) * 0.01 if name.endswith(UP) else tensor.detach()).clone()
        for name, tensor in model.named_parameters()
        if is_adapter(name)
    }


def configured(store: ObjectStore, base: str) -> PlatformConfig:
    settings = {"run": {"name": f"run-{uuid.uuid4().hex[:8]}"}, "policy": {"base": base}}
    return PlatformConfig.model_validate({**settings, "store": store.config})


@pytest.mark.parametrize("head", ["untied", "tied"])
def test_the_merged_policy_is_that_of_peft(seaweed: ObjectStore, tmp_path: Path, head: str) -> None:
    base = Path(POLICY) if head == "untied" else tied_policy(tmp_path / "base")
    config = configured(seaweed, str(base))
    adapter, out = random_adapter(base), tmp_path / "merged"
    named = (seaweed, config.run.name, "awares", FAMILY, TRAINED)
    key = export_adapter(adapter, SCALE, base, "base", *named)
    weights.run(config, "merge", None, out)

    files = tmp_path / "adapter"
    files.mkdir()
    for name in json.loads(seaweed.get(f"{key}/manifest.json"))["files"]:
        (files / name).write_bytes(seaweed.get(f"{key}/{name}"))
    model: Any = Policy.from_pretrained(base, dtype=torch.float32)
    wanted = peft.PeftModel.from_pretrained(model, files).merge_and_unload().state_dict()
    found = load_file(out / "model.safetensors")
    before = load_file(base / "model.safetensors")
    assert found.keys() == before.keys()
    assert ("lm_head.weight" in found) == (head == "untied")
    for name, tensor in found.items():
        assert torch.equal(tensor, wanted[FAMILY.current_name(name)].bfloat16()), name
    changed = [name for name in found if not torch.equal(found[name], before[name])]
    assert len(changed) == len(adapter) // 2

    assert (out / inputs.FILE).read_bytes() == (files / inputs.FILE).read_bytes()
    inputs.check(out, TRAINED)
    loaded: Any = Policy.from_pretrained(out, dtype=torch.bfloat16)
    tensors = loaded.lm_head.weight, loaded.get_input_embeddings().weight
    assert (tensors[0].data_ptr() == tensors[1].data_ptr()) == (head == "tied")


def test_merge_refuses_what_it_cannot_merge(seaweed: ObjectStore, tmp_path: Path) -> None:
    config = configured(seaweed, "mini")
    missing = f"{adapter_key(config.run.name, 'awares')} is missing: `awares grpo` exports it"
    with pytest.raises(PolicyError, match=missing):
        weights.run(config, "merge", None, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
    with pytest.raises(ConfigError, match="--version 3 has no effect on merge"):
        weights.run(config, "merge", 3, tmp_path / "merged")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is not empty; name another directory"):
        weights.run(config, "merge", None, tmp_path)


def test_merged_weights_without_their_adapter_are_no_finished_policy(
    seaweed: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that dies between the exports of weights and adapter leaves an incomplete policy.

    No reader accepts this policy until it is complete.
    """
    monkeypatch.setenv("AWARES_CACHE", str(tmp_path / "cache"))
    config, base = configured(seaweed, "mini"), Path(POLICY)
    run = config.run.name
    named = (seaweed, run, "awares", FAMILY, config.method)
    export_policy(Checkpoint(base), base, *named, {"step": 3}, adapter=True)
    assert read_meta(seaweed, run, "awares") is None
    with pytest.raises(PolicyError, match=r"awares-adapter is missing.*run `awares grpo` first"):
        playable(seaweed, run, "awares", "mini", FAMILY, "bfloat16", config.method)
    with pytest.raises(PolicyError, match="has no policy awares: run `awares grpo`"):
        check_policies(seaweed, run, config.policy, config.grpo, ("awares",), config.method)

    export_adapter(random_adapter(base), SCALE, base, "base", *named, {"step": 3})
    meta = read_meta(seaweed, run, "awares")
    assert meta is not None and meta["step"] == 3
    assert playable(seaweed, run, "awares", "mini", FAMILY, "bfloat16", config.method).adapter
