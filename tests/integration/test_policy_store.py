"""Tests that a reader gets only complete and undamaged policies from a real store."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file, save_file

from awares.errors import MissingPolicy, PolicyError
from awares.families.qwen2_5_vl import QWEN2_5_VL as FAMILY
from awares.sample import Label, Sample
from awares_platform.config import PlatformConfig
from awares_platform.config.data import DataConfig
from awares_platform.config.grpo import GrpoConfig
from awares_platform.config.method import MethodConfig
from awares_platform.config.policy import PolicyConfig
from awares_platform.config.run import RunConfig
from awares_platform.config.serve import ServeConfig
from awares_platform.curate import job as curate
from awares_platform.curate.shards import Shard
from awares_platform.data.dataset import write_samples
from awares_platform.data.rows import encode_rows
from awares_platform.engine.follow import load_newest
from awares_platform.evaluate import job as evaluate
from awares_platform.grpo import job as grpo
from awares_platform.method import environment
from awares_platform.runtime.run import Run
from awares_platform.serve.job import serving
from awares_platform.store import ObjectStore
from awares_platform.training.checkpoint import Saved
from awares_platform.training.export import export_policy, policy_key, read_meta
from awares_platform.training.identity import content_digest
from awares_platform.training.inputs import INPUTS
from awares_platform.training.lineage import check_lineage
from awares_platform.training.source import base_digest, pinned, resolve
from awares_platform.weights import Publisher, Subscriber

pytestmark = pytest.mark.integration

METHOD = MethodConfig()
CONFIG = {
    "model_type": "qwen2_5_vl",
    "architectures": ["Qwen2_5_VLForConditionalGeneration"],
    "dtype": "bfloat16",
    "text_config": {"vocab_size": 8},
    "image_token_id": 2,
    "vision_start_token_id": 0,
    "vision_end_token_id": 1,
}
TOKENIZER = {
    "added_tokens": [
        {"content": f"<|{name}|>", "id": i}
        for i, name in enumerate(("vision_start", "vision_end", "image_pad"))
    ]
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    directory = tmp_path / "base"
    directory.mkdir()
    for name, content in (
        ("config.json", CONFIG),
        ("tokenizer.json", TOKENIZER),
        ("processor_config.json", {}),
    ):
        (directory / name).write_text(json.dumps(content))
    save_file({"w": torch.zeros(3)}, directory / "model.safetensors")
    return directory


@pytest.fixture
def config(
    store: ObjectStore, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> PlatformConfig:
    monkeypatch.setenv("AWARES_CACHE", str(tmp_path / "cache"))
    return PlatformConfig(
        run=RunConfig(name="r", directory=tmp_path / "runs"),
        store=store.config,
        policy=PolicyConfig(base=str(source)),
    )


def test_an_exported_policy_comes_back_with_its_bases_files(
    config: PlatformConfig, store: ObjectStore, source: Path
) -> None:
    key = export_policy(
        {"w": torch.arange(3.0)}, source, store, "r", "sft", FAMILY, METHOD, {"step": 7}
    )
    path = resolve(store, "r", "sft", config.policy.base, FAMILY)
    assert read_meta(store, "r", "sft") == {
        "step": 7,
        "digest": content_digest(path),
        "trained_from": content_digest(source),
    }
    assert key == "runs/r/policies/sft"
    assert load_file(path / "model.safetensors")["w"].tolist() == [0, 1, 2]
    assert (path / "tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()
    # config.json states the dtype of the exported weights, not the dtype of the base.
    assert json.loads((path / "config.json").read_text())["dtype"] == "float32"


def test_a_new_export_replaces_the_old_for_every_reader(
    config: PlatformConfig, store: ObjectStore, source: Path
) -> None:
    export_policy({"w": torch.zeros(3)}, source, store, "r", "sft", FAMILY, METHOD)
    first = resolve(store, config.run.name, "sft", config.policy.base, FAMILY)
    export_policy({"w": torch.ones(3)}, source, store, "r", "sft", FAMILY, METHOD)
    second = resolve(store, config.run.name, "sft", config.policy.base, FAMILY)
    assert first != second and load_file(second / "model.safetensors")["w"].tolist() == [1, 1, 1]
    assert load_file(first / "model.safetensors")["w"].tolist() == [0, 0, 0]
    assert content_digest(first) != content_digest(second)


def test_an_unfinished_export_counts_as_none(
    config: PlatformConfig, store: ObjectStore, source: Path
) -> None:
    key = export_policy({"w": torch.zeros(3)}, source, store, "r", "sft", FAMILY, METHOD)
    store.delete(f"{key}/manifest.json")
    assert read_meta(store, "r", "sft") is None
    absent = r"no complete policy at s3://awares/.*/runs/r/policies/sft: "
    with pytest.raises(MissingPolicy, match=f"{absent}run `awares sft` first"):
        resolve(store, config.run.name, "sft", config.policy.base, FAMILY)
    as_base = config.model_copy(update={"policy": PolicyConfig(base=f"{store.config.url}/{key}")})
    with pytest.raises(MissingPolicy, match=f"{absent}check policy.base"):
        resolve(store, as_base.run.name, "base", as_base.policy.base, FAMILY)


def test_a_damaged_file_is_named_and_not_cached(
    config: PlatformConfig, store: ObjectStore, source: Path
) -> None:
    key = export_policy({"w": torch.zeros(3)}, source, store, "r", "awares", FAMILY, METHOD)
    store.put(f"{key}/model.safetensors", b"something else")
    for _ in range(2):
        with pytest.raises(
            PolicyError,
            match="policies/awares/model.safetensors is damaged: its hash is not the manifest's",
        ):
            resolve(store, config.run.name, "awares", config.policy.base, FAMILY)


@pytest.mark.parametrize("damaged", [b"", b"{", b"[]", b'{"files": 3}', b"\xff"])
def test_a_damaged_manifest_is_named(
    config: PlatformConfig, store: ObjectStore, source: Path, damaged: bytes
) -> None:
    key = export_policy({"w": torch.zeros(3)}, source, store, "r", "sft", FAMILY, METHOD)
    store.put(f"{key}/manifest.json", damaged)
    for reading in (
        lambda: resolve(store, config.run.name, "sft", config.policy.base, FAMILY),
        lambda: read_meta(store, "r", "sft"),
    ):
        with pytest.raises(
            PolicyError,
            match="policies/sft/manifest.json is no manifest of a policy .*; delete it and export",
        ):
            reading()


def test_a_policy_in_another_place_of_the_store_can_be_the_base(
    config: PlatformConfig, store: ObjectStore, source: Path
) -> None:
    export_policy({"w": torch.ones(3)}, source, store, "r", "sft", FAMILY, METHOD)
    elsewhere = config.model_copy(
        update={"policy": PolicyConfig(base=f"{store.config.url}/{policy_key('r', 'sft')}")}
    )
    assert load_file(
        resolve(store, elsewhere.run.name, "base", elsewhere.policy.base, FAMILY)
        / "model.safetensors"
    )["w"].tolist() == [
        1,
        1,
        1,
    ]


def test_a_directory_copied_into_a_bucket_can_be_the_base(
    config: PlatformConfig, store: ObjectStore, source: Path
) -> None:
    store.upload_directory(source, "models/mine")
    copied = config.model_copy(
        update={"policy": PolicyConfig(base=f"{store.config.url}/models/mine")}
    )
    directory = resolve(store, copied.run.name, "base", copied.policy.base, FAMILY)
    assert load_file(directory / "model.safetensors")["w"].tolist() == [0, 0, 0]
    empty = config.model_copy(
        update={"policy": PolicyConfig(base=f"{store.config.url}/models/none")}
    )
    foreign = "no complete policy at .*/models/none: check policy.base"
    with pytest.raises(PolicyError, match=foreign) as refused:
        resolve(store, empty.run.name, "base", empty.policy.base, FAMILY)
    assert refused.type is PolicyError, "no job exports a policy to this address"


def test_a_relative_base_is_pinned(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(source.parent)
    assert pinned(PolicyConfig(base="base")).base == str(source)
    assert pinned(PolicyConfig()).base == "mini"


# -- policies that change after a job has used them ------------------------------------------------


def flip_a_byte(path: Path) -> None:
    """Flip the lowest bit of the first weight in a safetensors file. The file keeps its size."""
    content = bytearray(path.read_bytes())
    content[8 + int.from_bytes(content[:8], "little")] ^= 1
    path.write_bytes(content)


def test_the_digest_of_a_stored_base_is_that_of_its_content(
    config: PlatformConfig, store: ObjectStore, source: Path
) -> None:
    base = f"{store.config.url}/models/mine"
    store.upload_directory(source, "models/mine")
    assert (
        base_digest(store.config, base)
        == base_digest(store.config, str(source))
        == content_digest(source)
    )
    flip_a_byte(source / "model.safetensors")
    assert base_digest(store.config, base) != base_digest(store.config, str(source))
    store.upload_directory(source, "models/mine")
    assert base_digest(store.config, base) == base_digest(store.config, str(source))


def test_the_digest_of_an_exported_base_comes_from_its_manifest(
    config: PlatformConfig, store: ObjectStore, source: Path, tmp_path: Path
) -> None:
    key = export_policy({"w": torch.ones(3)}, source, store, "r", "sft", FAMILY, METHOD)
    digest = base_digest(store.config, f"{store.config.url}/{key}")
    assert not (tmp_path / "cache" / "policies").exists(), "the base must not be downloaded"
    assert digest == content_digest(resolve(store, "r", "sft", "", FAMILY))


def test_curation_labels_again_when_the_policy_that_answers_has_changed(
    config: PlatformConfig, store: ObjectStore, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = [Sample(f"s{index}", "a" * 64, "q", "7", label=Label.LR) for index in range(4)]
    write_samples(store, "tiny", "train", samples)
    job = config.model_copy(update={"data": DataConfig(name="tiny", source="store", shard_rows=2)})
    labelled: list[int] = []

    def label(config: PlatformConfig, pending: Sequence[Shard], record: Run, shards: int) -> None:
        labelled.append(len(pending))
        for shard in pending:
            rows = encode_rows(shard.samples, metadata={"fingerprint": shard.fingerprint})
            store.put(shard.key, rows)

    monkeypatch.setattr(curate, "_label_all", label)
    assert curate.run(job).shards_resumed == 0
    assert curate.run(job).shards_resumed == 2
    flip_a_byte(source / "model.safetensors")
    assert curate.run(job).shards_resumed == 0
    assert labelled == [2, 0, 2]


@pytest.mark.parametrize("start", ["sft", "base"])
def test_a_finished_grpo_run_refuses_another_start(
    config: PlatformConfig, store: ObjectStore, source: Path, start: str
) -> None:
    job = config.model_copy(update={"grpo": GrpoConfig.model_validate({"start": start})})
    key = export_policy({"w": torch.zeros(3)}, source, store, "r", "sft", FAMILY, METHOD)
    before = resolve(store, "r", "sft", "", FAMILY) if start == "sft" else source
    write_samples(store, job.data.curated, "train", [Sample("s", "a" * 64, "q", "7")])
    meta = {"step": job.grpo.steps, "recipe": grpo.recipe_of(job, store)}
    export_policy({"w": torch.ones(3)}, before, store, "r", "awares", FAMILY, METHOD, meta)
    assert grpo.run(job).policy == "runs/r/policies/awares"
    if start == "sft":
        key = export_policy({"w": torch.full((3,), 2.0)}, source, store, "r", "sft", FAMILY, METHOD)
    else:
        flip_a_byte(source / "model.safetensors")
    origin = "its policy 'sft'" if start == "sft" else "policy.base="
    remedy = r"delete runs/r/policies/awares/ and runs/r/checkpoints/grpo/ .* `awares grpo` again"
    message = rf"'awares' was trained from \w{{12}}, but {origin}.* is \w{{12}} now: {remedy}"
    with pytest.raises(PolicyError, match=message):
        grpo.run(job)
    store.delete_prefix("runs/r/policies/awares/")
    check_lineage(store, "r", "awares", job.policy.base, job.grpo.start)
    assert key == "runs/r/policies/sft"


def test_an_endpoint_follows_no_learner_with_other_inputs(
    config: PlatformConfig, store: ObjectStore
) -> None:
    """A starting endpoint and a running endpoint must both refuse the learner's version."""
    publisher = Publisher(store, "r")
    publisher.publish(1, {"w": torch.zeros(3)}, {INPUTS: environment.inputs(METHOD)})
    changed = METHOD.model_copy(update={"max_crops": 3})
    settings = {
        "method": changed,
        "serve": ServeConfig(policy="base", follow=True),
        "grpo": GrpoConfig(start="base"),
    }
    trained = r"version 1 of run r was trained with method\.max_crops = 10 \(here 3\)"
    with pytest.raises(PolicyError, match=trained):
        serving(config.model_copy(update=settings)).__enter__()
    with pytest.raises(PolicyError, match=trained):
        asyncio.run(load_newest(cast(Any, NeverLoads()), Subscriber(store, "r"), None, changed))
    with pytest.raises(AssertionError, match="version 1"):
        asyncio.run(load_newest(cast(Any, NeverLoads()), Subscriber(store, "r"), None, METHOD))


class NeverLoads:
    """An engine with version 0, which fails the test if it has to load a version."""

    version = 0

    async def load_version(self, _: Subscriber, version: int, canary: None) -> Any:
        raise AssertionError(f"version {version}")


CHANGED = {
    "grpo.learning_rate": ({"grpo": {"learning_rate": 1e-3}}, "0.0001 in the run and 0.001 now"),
    "grpo.kl_beta": ({"grpo": {"kl_beta": 0.5}}, "0.05 in the run and 0.5 now"),
    "method.answer_weight": ({"method": {"answer_weight": 1}}, "10.0 in the run and 1.0 now"),
    "run.seed": ({"run": {"seed": 1}}, "0 in the run and 1 now"),
    "data": ({}, '"awares-mini-curated .*" in the run and "awares-mini-curated .*" now'),
}


@pytest.mark.parametrize("state", ["finished", "resumed"])
@pytest.mark.parametrize("key", CHANGED)
def test_a_grpo_run_refuses_another_recipe_by_name(
    config: PlatformConfig, store: ObjectStore, source: Path, key: str, state: str
) -> None:
    changes, values = CHANGED[key]
    settings = config.model_dump(mode="json")
    settings["grpo"] |= {"start": "base"}
    job = PlatformConfig.model_validate(settings)
    write_samples(store, job.data.curated, "train", [Sample("s", "a" * 64, "q", "7")])
    recipe = grpo.recipe_of(job, store)
    if state == "finished":
        meta = {"step": job.grpo.steps, "recipe": recipe}
        export_policy({"w": torch.ones(3)}, source, store, "r", "awares", FAMILY, METHOD, meta)
        assert grpo.run(job).metrics == {}
    else:
        saved = Saved(10, parameters="9f2c", identity=recipe, state={})
        folder = "runs/r/checkpoints/grpo/step-00000010"
        store.put(f"{folder}/awares.json", json.dumps(asdict(saved)).encode())
        assert not grpo.is_finished(store, "r", recipe)
    for section, changed in changes.items():
        settings[section] |= changed
    if key == "data":  # Only the content of the row changes.
        write_samples(store, job.data.curated, "train", [Sample("t", "a" * 64, "q", "7")])
    with pytest.raises(PolicyError, match=rf"recipe: {key} is {values}.*set another run\.name"):
        grpo.run(PlatformConfig.model_validate(settings))
    assert not list(store.list("runs/r/grpo/"))


def test_an_evaluation_refuses_policies_whose_start_has_changed(
    config: PlatformConfig, store: ObjectStore, source: Path
) -> None:
    check = partial(
        evaluate.check_policies, store, "r", config.policy, config.grpo, method=config.method
    )
    export_policy({"w": torch.zeros(3)}, source, store, "r", "sft", FAMILY, METHOD)
    sft = resolve(store, "r", "sft", "", FAMILY)
    export_policy({"w": torch.ones(3)}, sft, store, "r", "awares", FAMILY, METHOD)
    check(config.evaluate.policies)
    flip_a_byte(source / "model.safetensors")
    for policies in (("sft",), ("awares",)):
        with pytest.raises(PolicyError, match="'sft' was trained from .*: run `awares sft` again"):
            check(policies)
    export_policy({"w": torch.full((3,), 2.0)}, source, store, "r", "sft", FAMILY, METHOD)
    with pytest.raises(PolicyError, match="'awares' was trained from .* its policy 'sft' is"):
        check(config.evaluate.policies)
    retrained = resolve(store, "r", "sft", "", FAMILY)
    export_policy({"w": torch.ones(3)}, retrained, store, "r", "awares", FAMILY, METHOD)
    check(config.evaluate.policies)
