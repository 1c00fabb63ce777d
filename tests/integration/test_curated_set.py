"""Tests on a real store that each job reads the curated data set that fits its own settings."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from awares.errors import ConfigError, MissingData
from awares.sample import Label, Sample
from awares_platform.config import PlatformConfig
from awares_platform.curate import job as curate
from awares_platform.data.dataset import (
    read_manifest,
    read_samples,
    shard_key,
    write_manifest,
    write_samples,
)
from awares_platform.data.rows import encode_rows
from awares_platform.store import ObjectStore
from awares_platform.training.curated_set import recorded_labels, set_name, with_labels
from awares_platform.training.recipe import label_recipe
from awares_platform.training.source import base_digest

pytestmark = pytest.mark.integration
SAMPLES = [Sample(f"s{index}", "a" * 64, "q", "7", label=Label.LR) for index in range(4)]


@pytest.fixture
def config(seaweed: ObjectStore, tmp_path: Any) -> PlatformConfig:
    settings = {
        "run": {"name": "first", "directory": str(tmp_path)},
        "store": seaweed.config.model_dump() | {"url": f"s3://awares/{tmp_path.name}"},
        "data": {"name": "pages", "source": "store", "shard_rows": 2},
    }
    config = PlatformConfig.model_validate(settings)
    write_samples(ObjectStore.from_config(config.store), "pages", "train", SAMPLES)
    return config


@pytest.fixture
def store(config: PlatformConfig) -> ObjectStore:
    return ObjectStore.from_config(config.store)


def other(config: PlatformConfig, **curate: object) -> PlatformConfig:
    """Return the configuration of another run of the same data set, with these curate settings."""
    changed = {"curate": curate, "run": {"name": "second"}}
    settings = config.model_dump(mode="json")
    return PlatformConfig.model_validate(
        settings | {key: settings[key] | values for key, values in changed.items()}
    )


@pytest.fixture(autouse=True)
def labels_without_an_engine(monkeypatch: pytest.MonkeyPatch, store: ObjectStore) -> None:
    """Let curate store each pending shard as it is, instead of labelling it with an engine."""

    def label(config: PlatformConfig, pending: Any, record: object, shards: int) -> None:
        for shard in pending:
            metadata = {"fingerprint": shard.fingerprint}
            store.put(shard.key, encode_rows(shard.samples, metadata=metadata))

    monkeypatch.setattr(curate, "_label_all", label)


def test_runs_of_one_data_set_with_other_settings_or_samples_share_no_key(
    config: PlatformConfig, store: ObjectStore
) -> None:
    second = other(config, min_confidence=0.5)
    names = {curate.run(one).dataset for one in (config, second)}
    write_samples(store, "pages", "train", SAMPLES[:3])
    names.add(curate.run(config).dataset)
    assert len(names) == 3
    read = with_labels(config, store)
    assert len(read_samples(store, read.data.curated, "train")) == 3


def test_a_job_that_starts_again_reads_its_labels_while_another_run_curates(
    config: PlatformConfig, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    curate.run(config)
    labels = with_labels(config, store).data.curated
    spoilt = shard_key(labels, "train", 0)
    store.put(spoilt, store.get(spoilt)[:-20])
    read: list[int] = []

    def label(config: PlatformConfig, pending: Any, record: object, shards: int) -> None:
        read.append(len(read_samples(store, labels, "train")))
        for shard in pending:
            metadata = {"fingerprint": shard.fingerprint}
            store.put(shard.key, encode_rows(shard.samples, metadata=metadata))

    monkeypatch.setattr(curate, "_label_all", label)
    curate.run(other(config, min_confidence=0.5))
    curate.run(config)
    assert read == [2, 2]
    assert len(read_samples(store, labels, "train")) == 4


def test_a_setup_without_labels_is_told_which_set_is_nearest(
    config: PlatformConfig, store: ObjectStore
) -> None:
    with pytest.raises(
        MissingData, match=r"'pages-curated-\w{12}' is not in .*awares curate` first$"
    ):
        with_labels(config, store)
    curate.run(other(config, min_confidence=0.5, both_wrong="LR"))
    nearest = curate.run(other(config, min_confidence=0.5)).dataset.split("/")[1]
    message = rf"set data\.labels={nearest} .*\(curate\.min_confidence is 0\.5 there and 0\.9 now\)"
    with pytest.raises(MissingData, match=message):
        with_labels(config, store)
    data = config.data.model_copy(update={"labels": nearest})
    chosen = config.model_copy(update={"data": data})
    assert with_labels(chosen, store) == chosen
    with pytest.raises(ConfigError, match=rf"{nearest} names labels of another recipe"):
        curate.run(chosen)


@pytest.mark.parametrize("made", [None, {}, {"curate.min_confidence": 0.5}])
def test_a_set_of_the_older_name_is_read_if_its_recipe_fits(
    config: PlatformConfig, store: ObjectStore, made: Mapping[str, object] | None
) -> None:
    policy = base_digest(config.store, config.policy.base)
    recipe = label_recipe(config.method, config.engine, config.curate, policy)
    settings = None if made is None else {"settings": recipe | dict(made)}
    write_manifest(store, "pages-curated", "train", [], 0, settings)
    if not made:
        assert with_labels(config, store).data.labels == "pages-curated"
        return
    with pytest.raises(MissingData, match=r"data\.labels=pages-curated .*0\.5 there and 0\.9 now"):
        with_labels(config, store)


@pytest.mark.parametrize("form", [{}, {"curate.judge_form": "compare"}])
def test_a_set_from_before_or_with_a_new_setting_is_read(
    config: PlatformConfig, store: ObjectStore, form: Mapping[str, object]
) -> None:
    """A curated set that does not record curate.judge_form counts as made with the default value.

    Only a set that records another value is refused.
    """
    name = curate.run(config).dataset.split("/")[1]
    made = read_manifest(store, name, "train")["recipe"]["settings"]
    older = {key: made[key] for key in made if key != "curate.judge_form"} | dict(form)
    store.delete_prefix(f"datasets/{name}/")
    named = set_name(config.data, older)
    write_manifest(store, named, "train", [], 0, {"settings": older})
    assert with_labels(config, store).data.labels == named
    store.delete_prefix(f"datasets/{named}/")
    other_form = {"settings": older | {"curate.judge_form": "each"}}
    write_manifest(store, "pages-curated-77ab", "train", [], 0, other_form)
    message = r'\(curate\.judge_form is "each" there and "compare" now\)'
    with pytest.raises(MissingData, match=message):
        with_labels(config, store)


def test_an_endpoint_reads_the_labels_that_the_latest_job_has_recorded(
    config: PlatformConfig, store: ObjectStore
) -> None:
    assert recorded_labels(store, "first", config.data) == config.data
    curate.run(config)
    assert recorded_labels(store, "first", config.data) == with_labels(config, store).data
    for job, labels in (("sft", "of-sft"), ("grpo", ""), ("grpo", "of-grpo")):
        recorded = {"data": {"labels": labels}}
        store.put(f"runs/first/{job}/config.json", json.dumps(recorded).encode())
        assert recorded_labels(store, "first", config.data).curated == (labels or "of-sft")
