"""Tests from which policy GRPO starts after SFT with LoRA, and how a pulled version is merged."""

import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from awares.errors import MissingPolicy, PolicyError
from awares.families.qwen2_5_vl import QWEN2_5_VL as FAMILY
from awares.mini import POLICY
from awares_platform.cli import weights
from awares_platform.config import PlatformConfig
from awares_platform.engine.exported import Playable, playable_start
from awares_platform.store import ObjectStore
from awares_platform.training.export import adapter_key, export_adapter, export_policy
from awares_platform.training.identity import MANIFEST
from awares_platform.training.recipe import grpo_recipe
from awares_platform.training.start import StartingPolicy, starting_adapter, starting_policy
from awares_platform.weights import Identity, Publisher
from awares_platform.weights.adapter import DOWN, UP, fold_adapter
from awares_platform.weights.checkpoint import Checkpoint

pytestmark = pytest.mark.integration

BASE, RANK, SCALE = Path(POLICY), 2, 2.0
LAYER = "model.language_model.layers.0.self_attn.q_proj"


@dataclass(frozen=True)
class Trained:
    """A run whose SFT has exported an adapter, and the adapter's tensors."""

    config: PlatformConfig
    store: ObjectStore
    adapter: dict[str, Tensor]

    def starting(self, **policy: Any) -> StartingPolicy:
        settings = self.config.policy.model_copy(update=policy)
        return starting_policy(self.store, self.config.run.name, "sft", settings, FAMILY)


@pytest.fixture
def trained(seaweed: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trained:
    monkeypatch.setenv("AWARES_CACHE", str(tmp_path / "cache"))
    settings = {
        "run": {"name": f"run-{uuid.uuid4().hex[:8]}"},
        "store": seaweed.config,
        "policy": {"lora_rank": RANK, "lora_alpha": RANK * SCALE, "dtype": "bfloat16"},
    }
    config = PlatformConfig.model_validate(settings)
    width = next(tensor for name, tensor in Checkpoint(BASE).items() if "q_proj.weight" in name)
    torch.manual_seed(0)
    adapter = {
        f"{LAYER}{DOWN}": torch.randn(RANK, width.shape[1]),
        f"{LAYER}{UP}": torch.randn(width.shape[0], RANK) * 1e-4,
    }
    named = (seaweed, config.run.name, "sft", FAMILY, config.method)
    export_policy(Checkpoint(BASE), BASE, *named, adapter=True)
    export_adapter(adapter, SCALE, BASE, "base", *named)
    return Trained(config, seaweed, adapter)


def test_in_bfloat16_grpo_trains_the_adapter_of_sft_further(trained: Trained) -> None:
    start = trained.starting()
    assert (start.name, start.weights) == ("base", BASE) and start.adapter is not None
    method = trained.config.method
    assert playable_start(start, FAMILY, "bfloat16", method) == Playable(BASE, start.adapter, BASE)
    folded = playable_start(start, FAMILY, "float32", method)
    assert folded.policy != folded.base == BASE and folded.adapter is None


@pytest.mark.parametrize("policy", [{"dtype": "float32"}, {"lora_rank": 0}], ids=str)
def test_otherwise_grpo_starts_from_the_merged_weights(
    trained: Trained, policy: dict[str, Any]
) -> None:
    start = trained.starting(**policy)
    assert (start.name, start.adapter) == ("sft", None) and start.weights != BASE


def test_an_adapter_of_another_rank_or_half_an_export_is_refused(trained: Trained) -> None:
    with pytest.raises(PolicyError, match=r"rank 2, and policy.lora_rank is 4: set") as other:
        trained.starting(lora_rank=4)
    assert other.type is PolicyError, "no other job changes this rank"
    run, store, policy = trained.config.run.name, trained.store, trained.config.policy
    assert starting_adapter(store, run, "sft", policy) is not None
    store.delete(f"{adapter_key(run, 'sft')}/{MANIFEST}")
    with pytest.raises(MissingPolicy, match=r"sft-adapter is missing.*run `awares sft` first"):
        trained.starting()
    assert starting_adapter(store, run, "sft", policy) is None


def test_the_recipe_of_grpo_names_the_adapter_that_it_trains_further(trained: Trained) -> None:
    run, samples = trained.config.run.name, "5f2a" * 16
    found = starting_adapter(trained.store, run, "sft", trained.config.policy)
    recipe = grpo_recipe(trained.config, "9f2c", samples, found)
    assert recipe["starting adapter"] == found
    exact = trained.config.policy.model_copy(update={"dtype": "float32"})
    assert starting_adapter(trained.store, run, "sft", exact) is None
    assert "starting adapter" not in grpo_recipe(trained.config, "9f2c", samples)


def test_a_pulled_version_is_the_base_with_the_versions_adapter(
    trained: Trained, tmp_path: Path
) -> None:
    """The version's adapter replaces the adapter of SFT, and is not added to it."""
    later = {name: tensor * 2 for name, tensor in trained.adapter.items()}
    identity = Identity(adapter=SCALE)
    Publisher(trained.store, trained.config.run.name, identity=identity).publish(1, later)
    weights.run(trained.config, "pull", 1, tmp_path / "pulled")
    base = Checkpoint(BASE)
    wanted, _ = fold_adapter(later, SCALE, base, FAMILY.current_name)
    found = load_file(tmp_path / "pulled" / "model.safetensors")
    assert all(torch.equal(found[name], wanted.get(name, base[name])) for name in base)
