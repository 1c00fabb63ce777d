"""Tests that Ctrl-C ends all processes of a quickstart, and that the next quickstart continues."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from awares.errors import ConfigError
from awares_platform.cli.quickstart import fingerprint, prepare
from awares_platform.config import PlatformConfig
from awares_platform.runtime.job_lease import (
    JobRefused,
    dataset_lease,
    hold,
    run_lease,
    serve_lease,
)
from awares_platform.store import ObjectStore
from tests.processes import family, gone

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]
STOP_S = 60
LABELS = "awares-mini-curated-9f2c"


@pytest.fixture
def config(seaweed: ObjectStore, tmp_path: Path) -> PlatformConfig:
    return PlatformConfig.model_validate(
        {
            "run": {"name": "quickstart", "directory": str(tmp_path)},
            "store": {
                "url": "s3://awares/quickstart-test",
                "endpoint": seaweed.config.endpoint,
                "retry_budget_s": 10,
            },
        }
    )


def _earlier_run(config: PlatformConfig, store: ObjectStore, digest: str) -> Path:
    """Write the state of a run that has finished curate and sft, and return the run's directory.

    A quickstart must run sft again, because the directory has no folder `sft`.
    """
    directory = Path(config.run.directory) / "quickstart"
    (directory / "curate").mkdir(parents=True)
    state = {
        "fingerprint": digest,
        "finished": ["curate", "sft"],
        "wall_s": {"curate": 70.0, "sft": 90.0},
    }
    (directory / "progress.json").write_text(json.dumps(state))
    for key in (
        "runs/quickstart/sft/metrics.jsonl",
        "runs/other/kept",
        f"datasets/{LABELS}/kept",
        "datasets/awares-mini/answers/kept",
        "datasets/awares-mini/train/kept",
    ):
        store.put(key, b"1")
    recorded = {"data": {"labels": LABELS}}
    store.put("runs/quickstart/curate/config.json", json.dumps(recorded).encode())
    return directory


def test_the_same_setup_goes_on(config: PlatformConfig) -> None:
    store = ObjectStore.from_config(config.store)
    directory = _earlier_run(config, store, fingerprint(config))
    state = prepare(config, directory, fresh=False)
    assert (state.finished, state.wall_s) == (["curate"], {"curate": 70.0, "sft": 90.0})
    assert store.exists("runs/quickstart/sft/metrics.jsonl")


@pytest.mark.parametrize(
    "lease",
    [run_lease("quickstart", "grpo"), serve_lease("quickstart"), dataset_lease(LABELS)],
    ids=["job", "endpoint", "labels"],
)
def test_the_objects_of_a_running_job_are_not_deleted(config: PlatformConfig, lease: str) -> None:
    store = ObjectStore.from_config(config.store)
    directory = _earlier_run(config, store, "another")
    with (
        hold(store, lease, "grpo", beat_s=0.1),
        pytest.raises(JobRefused, match="is in use by `awares grpo`"),
    ):
        prepare(config, directory, fresh=True)
    assert store.exists("runs/quickstart/sft/metrics.jsonl")
    assert (directory / "curate").is_dir()


@pytest.mark.parametrize("fresh", [True, False])
def test_another_setup_and_fresh_start_clean(config: PlatformConfig, fresh: bool) -> None:
    store = ObjectStore.from_config(config.store)
    directory = _earlier_run(config, store, fingerprint(config) if fresh else "another")
    state = prepare(config, directory, fresh)
    assert (state.finished, state.wall_s) == ([], {})
    assert [path.name for path in directory.iterdir()] == ["progress.json"]
    assert not store.exists("runs/quickstart/sft/metrics.jsonl") and store.exists("runs/other/kept")
    for made in (f"{LABELS}/kept", "awares-mini/answers/kept"):
        assert store.exists(f"datasets/{made}") is not fresh
    assert store.exists("datasets/awares-mini/train/kept")


@pytest.mark.parametrize(
    "damaged", ['{"fingerprint": "ab', "[]", '{"fingerprint": "ab", "finished": []}']
)
def test_a_damaged_progress_file_is_named_and_nothing_is_lost(
    config: PlatformConfig, damaged: str
) -> None:
    store = ObjectStore.from_config(config.store)
    directory = _earlier_run(config, store, fingerprint(config))
    (directory / "progress.json").write_text(damaged)
    with pytest.raises(ConfigError, match=r"progress\.json is damaged .* --fresh"):
        prepare(config, directory, fresh=False)
    assert store.exists("runs/quickstart/sft/metrics.jsonl") and (directory / "curate").is_dir()
    assert prepare(config, directory, fresh=True).finished == []


def test_a_run_that_no_quickstart_made_is_left_alone(config: PlatformConfig) -> None:
    store = ObjectStore.from_config(config.store)
    store.put("runs/quickstart/policies/awares/model.safetensors", b"precious")
    directory = Path(config.run.directory) / "quickstart"
    with pytest.raises(
        ConfigError,
        match="no quickstart made it: choose another run.name, or discard it with --fresh",
    ):
        prepare(config, directory, fresh=False)
    assert store.exists("runs/quickstart/policies/awares/model.safetensors")
    prepare(config, directory, fresh=True)
    assert not store.exists("runs/quickstart/policies/awares/model.safetensors")


@pytest.mark.slow
def test_ctrl_c_leaves_no_process(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'platform'}"}
    environment.pop("RAY_ADDRESS", None)
    code = "from awares_platform.cli.main import main; main()"
    settings = [
        f"run.directory={tmp_path / 'runs'}",
        "data.train_samples=64",
        "data.test_samples=8",
    ]
    process = subprocess.Popen(
        [
            sys.executable, "-c", code, "quickstart",
            "--config", str(ROOT / "jobs/configs/mini.toml"), *settings,
        ],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, cwd=tmp_path,
    )  # fmt: skip
    assert process.stdout is not None
    said: list[str] = []
    for line in iter(process.stdout.readline, ""):
        said.append(line)
        if line.startswith("[1/5] curate") and "starting the engine" in line or len(said) > 3:
            break
    time.sleep(2)
    parent = psutil.Process(process.pid)
    processes = family(parent)
    assert len(processes) > 3, "".join(said)
    parent.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=STOP_S)

    assert process.returncode == 130, rest
    assert (
        "awares quickstart: interrupted; everything it started has stopped" in rest
        and "Traceback" not in rest
    )
    assert not gone(processes, within_s=10)
    state = json.loads((tmp_path / "runs" / "quickstart" / "progress.json").read_text())
    assert state["finished"] == [] and state["wall_s"]["curate"] > 0
