"""Policies in a real store: published whole, read verified."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from awares.errors import PolicyError
from awares_platform.config import PlatformConfig
from awares_platform.config.policy import PolicyConfig
from awares_platform.config.run import RunConfig
from awares_platform.store import ObjectStore
from awares_platform.training.policy import (
    export_policy,
    fingerprint,
    pinned,
    policy_key,
    read_meta,
    resolve,
)

pytestmark = pytest.mark.integration

CONFIG = {
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
def store(seaweed: ObjectStore, tmp_path: Path) -> ObjectStore:
    return ObjectStore.from_config(
        seaweed.config.model_copy(update={"url": f"s3://awares/{tmp_path.name}"})
    )


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
        run=RunConfig(name="r"), store=store.config, policy=PolicyConfig(base=str(source))
    )


def test_an_exported_policy_comes_back_with_its_bases_files(
    config: PlatformConfig, store: ObjectStore, source: Path
) -> None:
    key = export_policy({"w": torch.arange(3.0)}, source, store, "r", "sft", {"step": 7})
    path = resolve(config, store, "sft")
    assert key == "runs/r/policies/sft" and read_meta(store, "r", "sft") == {"step": 7}
    assert load_file(path / "model.safetensors")["w"].tolist() == [0, 1, 2]
    assert (path / "tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()
    assert (
        json.loads((path / "config.json").read_text())["dtype"] == "float32"
    )  # as the weights beside it


def test_a_new_export_replaces_the_old_for_every_reader(
    config: PlatformConfig, store: ObjectStore, source: Path
) -> None:
    export_policy({"w": torch.zeros(3)}, source, store, "r", "sft")
    first = resolve(config, store, "sft")
    export_policy({"w": torch.ones(3)}, source, store, "r", "sft")
    second = resolve(config, store, "sft")
    assert first != second and load_file(second / "model.safetensors")["w"].tolist() == [1, 1, 1]
    assert load_file(first / "model.safetensors")["w"].tolist() == [0, 0, 0]
    assert fingerprint(first) != fingerprint(second)


def test_an_unfinished_export_counts_as_none(
    config: PlatformConfig, store: ObjectStore, source: Path
) -> None:
    key = export_policy({"w": torch.zeros(3)}, source, store, "r", "sft")
    store.delete(f"{key}/manifest.json")
    assert read_meta(store, "r", "sft") is None
    with pytest.raises(
        PolicyError,
        match=r"no complete policy at s3://awares/.*/runs/r/policies/sft: run `awares sft` first",
    ):
        resolve(config, store, "sft")
    as_base = config.model_copy(update={"policy": PolicyConfig(base=f"{store.config.url}/{key}")})
    with pytest.raises(PolicyError, match="runs/r/policies/sft: check policy.base"):
        resolve(as_base, store, "base")


def test_a_damaged_file_is_named_and_not_cached(
    config: PlatformConfig, store: ObjectStore, source: Path
) -> None:
    key = export_policy({"w": torch.zeros(3)}, source, store, "r", "awares")
    store.put(f"{key}/model.safetensors", b"something else")
    for _ in range(2):
        with pytest.raises(
            PolicyError,
            match="policies/awares/model.safetensors is damaged: its hash is not the manifest's",
        ):
            resolve(config, store, "awares")


@pytest.mark.parametrize("damaged", [b"", b"{", b"[]", b'{"files": 3}', b"\xff"])
def test_a_damaged_manifest_is_named(
    config: PlatformConfig, store: ObjectStore, source: Path, damaged: bytes
) -> None:
    key = export_policy({"w": torch.zeros(3)}, source, store, "r", "sft")
    store.put(f"{key}/manifest.json", damaged)
    for reading in (lambda: resolve(config, store, "sft"), lambda: read_meta(store, "r", "sft")):
        with pytest.raises(
            PolicyError,
            match="policies/sft/manifest.json is no manifest of a policy .*; delete it and export",
        ):
            reading()


def test_a_policy_in_another_place_of_the_store_can_be_the_base(
    config: PlatformConfig, store: ObjectStore, source: Path
) -> None:
    export_policy({"w": torch.ones(3)}, source, store, "r", "sft")
    elsewhere = config.model_copy(
        update={"policy": PolicyConfig(base=f"{store.config.url}/{policy_key('r', 'sft')}")}
    )
    assert load_file(resolve(elsewhere, store, "base") / "model.safetensors")["w"].tolist() == [
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
    assert load_file(resolve(copied, store, "base") / "model.safetensors")["w"].tolist() == [
        0,
        0,
        0,
    ]
    empty = config.model_copy(
        update={"policy": PolicyConfig(base=f"{store.config.url}/models/none")}
    )
    with pytest.raises(
        PolicyError, match="no complete policy at .*/models/none: check policy.base"
    ):
        resolve(empty, store, "base")


def test_a_relative_base_is_pinned(
    config: PlatformConfig, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(source.parent)
    relative = config.model_copy(update={"policy": PolicyConfig(base="base")})
    assert pinned(relative).policy.base == str(source)
    assert pinned(PlatformConfig()).policy.base == "mini"
