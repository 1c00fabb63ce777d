"""Tests the output of `awares weights`, and the checkpoint that `awares weights pull` writes."""

import os
import subprocess
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration

from awares.errors import ConfigError, PolicyError
from awares.families.qwen2_5_vl import QWEN2_5_VL as FAMILY
from awares.mini import POLICY
from awares_platform.cli import weights
from awares_platform.config import PlatformConfig
from awares_platform.config.grpo import GrpoConfig
from awares_platform.config.method import MethodConfig
from awares_platform.config.run import RunConfig
from awares_platform.method import environment
from awares_platform.store import ObjectStore
from awares_platform.training import inputs
from awares_platform.training.export import export_policy
from awares_platform.weights import Cadence, Identity, Publisher, WeightsError
from awares_platform.weights.adapter import DOWN, UP
from awares_platform.weights.manifest import version_folder
from awares_platform.weights.retention import pinned

pytestmark = pytest.mark.integration

BASE = load_file(Path(POLICY) / "model.safetensors")
LAYER = "model.language_model.layers.0.self_attn.q_proj"


def moved(seed: int) -> dict[str, Tensor]:
    """Return the bundled policy's weights with every seventh row of the output head changed.

    The first changed row is `seed`. The bit pattern of each changed element is increased by 1.
    """
    head = BASE["lm_head.weight"].clone()
    head.view(torch.int16)[seed::7] += 1
    return {**BASE, "lm_head.weight": head}


@pytest.fixture
def config(seaweed: ObjectStore) -> PlatformConfig:
    run = RunConfig(name=f"run-{uuid.uuid4().hex[:8]}")
    return PlatformConfig(run=run, store=seaweed.config, grpo=GrpoConfig(start="base"))


def publish(
    store: ObjectStore,
    config: PlatformConfig,
    states: list[Mapping[str, Tensor]],
    identity: Identity | None = None,
) -> None:
    publisher = Publisher(
        store,
        config.run.name,
        cadence=Cadence(anchor_every=3),
        identity=identity or Identity("5d1c", "77b0"),
    )
    for version, state in enumerate(states, start=1):
        publisher.publish(version, state, step=10 * version)


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


def test_ls_and_show_describe_the_published_versions(
    seaweed: ObjectStore, config: PlatformConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(seaweed, config, [moved(seed) for seed in range(4)])
    weights.run(config, "pin", 2, None)
    assert lines(capsys) == [f"version 2 of run {config.run.name} is pinned"]
    weights.run(config, "ls", None, None)
    head, *rows = lines(capsys)
    assert head.split() == ["version", "step", "changed", "forms"]
    assert [row.split()[:2] for row in rows] == [["4", "40"], ["3", "30"], ["2", "20"], ["1", "10"]]
    assert (
        "delta on 3" in rows[0]
        and "delta on 2" in rows[1]
        and "anchor" in rows[0]
        and rows[2].endswith("pinned")
    )
    weights.run(config, "show", 3, None)
    shown = "\n".join(lines(capsys))
    assert f"version    3 of run {config.run.name}, optimizer step 30, writer epoch 1" in shown
    assert "joining    1 -> 2 -> 3" in shown and "processor 5d1c, template 77b0" in shown
    assert "ulp" in shown and "same" in shown
    weights.run(config, "unpin", 2, None)
    assert not pinned(seaweed, config.run.name)
    with pytest.raises(WeightsError, match="version 9 is not published"):
        weights.run(config, "pin", 9, None)


def test_verify_names_damaged_and_unverifiable_versions(
    seaweed: ObjectStore, config: PlatformConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(seaweed, config, [moved(seed) for seed in range(5)])
    weights.run(config, "verify", None, None)
    # There are six manifests for five versions, because version 4 has a delta and whole weights.
    assert capsys.readouterr().out.count("verified") == 6
    key = f"{version_folder(config.run.name, 2)}/e1-d-r00000-00000.bin"
    data = bytearray(seaweed.get(key))
    data[len(data) // 2] ^= 1
    seaweed.put(key, bytes(data))
    with pytest.raises(WeightsError, match="1 of 6 manifests"):
        weights.run(config, "verify", None, None)
    said = capsys.readouterr().out
    assert (
        "DAMAGED" in said
        and "version 3: not verified, because its base version 2 is damaged" in said
    )
    assert "version 4: anchor" in said and "version 5: delta on 4" in said
    weights.run(config, "verify", 5, None)


def test_pull_writes_a_checkpoint_that_transformers_loads(
    seaweed: ObjectStore, config: PlatformConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(seaweed, config, [moved(seed) for seed in range(2)])
    weights.run(config, "pull", None, tmp_path / "pulled")
    assert lines(capsys)[-1] == str(tmp_path / "pulled")
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(
        tmp_path / "pulled", dtype=torch.bfloat16
    )
    found = model.state_dict()
    assert all(
        torch.equal(found[FAMILY.current_name(name)], tensor) for name, tensor in moved(1).items()
    )
    assert {path.name for path in (tmp_path / "pulled").iterdir()} >= {
        "config.json",
        "tokenizer.json",
        "chat_template.jinja",
    }
    with pytest.raises(ConfigError, match="is not empty; name another directory"):
        weights.run(config, "pull", None, tmp_path / "pulled")


def test_pull_folds_an_adapter_into_the_policy_that_it_was_trained_on(
    seaweed: ObjectStore, config: PlatformConfig, tmp_path: Path
) -> None:
    [(name, weight)] = [
        (name, tensor)
        for name, tensor in BASE.items()
        if FAMILY.current_name(name) == f"{LAYER}.weight"
    ]
    # The checkpoint and the learner use different names for the same parameter.
    assert name != FAMILY.current_name(name)
    down, up = torch.randn(4, weight.shape[1]), torch.randn(weight.shape[0], 4)
    publish(
        seaweed,
        config,
        [{f"{LAYER}{DOWN}": down, f"{LAYER}{UP}": up}],
        Identity(adapter=0.5),
    )
    weights.run(config, "pull", 1, tmp_path / "pulled")
    found = load_file(tmp_path / "pulled" / "model.safetensors")
    assert torch.equal(found[name], (weight.float() + 0.5 * up @ down).to(weight.dtype))
    assert all(torch.equal(found[other], tensor) for other, tensor in BASE.items() if other != name)


def test_pull_records_the_inputs_of_the_training(
    seaweed: ObjectStore, config: PlatformConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`pull` records settings such as `max_pixels` as they were in training.

    It reads them from the run's "sft" policy or from the manifest, not from its own configuration.
    """
    monkeypatch.setenv("AWARES_CACHE", str(tmp_path / "cache"))
    trained = MethodConfig(max_pixels=401_408, low_ratio=0.4)
    export_policy(BASE, Path(POLICY), seaweed, config.run.name, "sft", FAMILY, trained)
    publish(seaweed, config, [moved(0)])
    grpo = GrpoConfig(start="sft")
    weights.run(config.model_copy(update={"grpo": grpo}), "pull", 1, tmp_path / "pulled")
    inputs.check(tmp_path / "pulled", trained)
    Publisher(seaweed, "recorded").publish(1, BASE, {inputs.INPUTS: environment.inputs(trained)})
    run = RunConfig(name="recorded")
    weights.run(config.model_copy(update={"run": run}), "pull", 1, tmp_path / "base")
    inputs.check(tmp_path / "base", trained)
    with pytest.raises(PolicyError, match=r"method\.low_ratio = 0\.4 \(here 0\.5\)"):
        inputs.check(tmp_path / "pulled", config.method)


def test_a_run_without_weights_is_a_one_line_error(seaweed: ObjectStore) -> None:
    command = [
        sys.executable,
        "-c",
        "from awares_platform.cli.main import main; main()",
        "weights",
        "ls",
        "no-such-run",
    ]
    store = [f"store.url={seaweed.config.url}", f"store.endpoint={seaweed.config.endpoint}"]
    result = subprocess.run(
        [*command, *store], capture_output=True, text=True, timeout=120, env=dict(os.environ)
    )
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].startswith(
        f"awares weights: run no-such-run has published no weights in {seaweed.config.url}"
    )
