"""Tests the records that a run writes on disk, and the copies of the records in the store."""

import json
from pathlib import Path

import pytest

from awares_platform.config import PlatformConfig, load
from awares_platform.runtime.run import Run
from awares_platform.store import ObjectStore

pytestmark = pytest.mark.integration


@pytest.fixture
def config(seaweed: ObjectStore, tmp_path: Path) -> PlatformConfig:
    empty = tmp_path / "empty.toml"
    empty.write_text("")
    store = seaweed.config.model_copy(update={"retry_budget_s": 1.0})
    return load(
        empty, [f"run.directory={tmp_path / 'runs'}", f"run.name={tmp_path.name}"]
    ).model_copy(update={"store": store})


def test_a_run_records_what_it_was_and_mirrors_it(
    config: PlatformConfig, seaweed: ObjectStore, tmp_path: Path
) -> None:
    with Run(config, "sft") as run:
        run.metrics(1, {"sft/loss": 2.5})
    folder = tmp_path / "runs" / config.run.name / "sft"
    assert load(folder / "config.json") == config
    assert json.loads((folder / "versions.json").read_text())["ray"]
    for name in ("config.json", "versions.json", "metrics.jsonl"):
        assert seaweed.get(f"runs/{config.run.name}/sft/{name}") == (folder / name).read_bytes()


def test_a_run_resumed_on_another_machine_keeps_its_metrics(
    config: PlatformConfig, seaweed: ObjectStore, tmp_path: Path
) -> None:
    with Run(config, "sft") as run:
        run.metrics(1, {"sft/loss": 2.5})
    elsewhere = config.model_copy(
        update={"run": config.run.model_copy(update={"directory": tmp_path / "elsewhere"})}
    )
    with Run(elsewhere, "sft") as run:
        run.metrics(2, {"sft/loss": 2.0})
    steps = [
        json.loads(line)["step"]
        for line in seaweed.get(f"runs/{config.run.name}/sft/metrics.jsonl").splitlines()
    ]
    assert steps == [1, 2]


def test_metrics_are_mirrored_although_the_run_fails(
    config: PlatformConfig, seaweed: ObjectStore
) -> None:
    with pytest.raises(RuntimeError), Run(config, "grpo") as run:
        run.metrics(1, {"reward/mean": 0.5})
        raise RuntimeError
    assert b"reward/mean" in seaweed.get(f"runs/{config.run.name}/grpo/metrics.jsonl")


def test_a_store_that_fails_midway_does_not_stop_the_run(
    config: PlatformConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Run(config, "grpo") as run:
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        run._store = ObjectStore(config.store)
        run.metrics(1, {"reward/mean": 0.5})
        run.mirror()
    assert (run.directory / "metrics.jsonl").read_text().count("\n") == 1
