"""GRPO on the real parts with bad input: damaged data, a store that dies, a checkpoint of another model."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from awares.sample import Label
from awares_platform import metrics, seaweed
from awares_platform.config import PlatformConfig
from awares_platform.dataset import ensure_mini, read_samples, write_samples
from awares_platform.image_cache import image_key
from awares_platform.store import ObjectStore

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1800)]
STEPS = 8


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PlatformConfig:
    """A run with a SeaweedFS of its own, in which one image (the canary's first) is damaged, one row unlabelled and one corrupt."""
    settings = {
        "run": {"name": "faults", "directory": str(tmp_path / "runs")},
        "store": {"retry_budget_s": 5},
        "data": {"train_samples": 48, "test_samples": 1, "image_cache": str(tmp_path / "images")},
        "engine": {"kv_cache_gib": 0.25},
        "grpo": {
            "start": "base",
            "steps": STEPS,
            "groups_per_step": 4,
            "group_size": 4,
            "max_tokens": 8,
            "checkpoint_every": 1,
            "micro_batch": 8,
            "learner_restarts": 0,
        },
    }
    config = PlatformConfig.model_validate(settings)
    with disk(config, monkeypatch) as store:
        ensure_mini(config, store)
        samples = [replace(sample, label=Label.LR) for sample in read_samples(store, "awares-mini", "train")]
        store.put(image_key(samples[0].image), b"rubbish")
        samples[5], samples[6] = replace(samples[5], label=None), replace(samples[6], question=" ")
        write_samples(store, "awares-mini-curated", "train", samples)
    return config


@contextmanager
def disk(config: PlatformConfig, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    """The store that a run with a SeaweedFS of its own has on disk."""
    with monkeypatch.context() as environment, seaweed.serve(config.run.directory / ".store", config.store.bucket) as server:
        environment.setenv("AWS_ACCESS_KEY_ID", server.access_key)
        environment.setenv("AWS_SECRET_ACCESS_KEY", server.secret_key)
        yield ObjectStore.from_config(config.store.model_copy(update={"endpoint": server.endpoint}))


def start(config: PlatformConfig, *overrides: str) -> subprocess.Popen[str]:
    """`awares grpo`, on a Ray and a store of its own."""
    setup = config.run.directory / "setup.json"
    setup.write_text(config.model_dump_json())
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    command = [sys.executable, "-c", "from awares_platform.cli import main; main()", "grpo", "--config", str(setup), *overrides]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def last_words(job: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Its status, its progress, and the one line that a failed job ends with."""
    shown, said = job.communicate(timeout=600)
    assert "Traceback" not in said, said
    return job.returncode, shown + said, (said.strip().splitlines() or [""])[-1]


def wait_for(condition: Callable[[], bool], timeout_s: float = 600) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


def test_each_is_one_clear_error_and_the_run_goes_on_afterwards(config: PlatformConfig) -> None:
    rows = config.run.directory / "faults" / "grpo" / "metrics.jsonl"
    job = start(config)
    wait_for(lambda: job.poll() is not None or (rows.exists() and len(rows.read_text().splitlines()) >= 5))
    for process in psutil.Process(job.pid).children() if job.poll() is None else ():
        if process.name() == "weed":
            process.kill()
    status, shown, error = last_words(job)
    assert status == 2 and re.match(r"awares grpo: .*(store\.endpoint|check the store)", error), shown
    assert "46 samples (2 unusable rows left out)" in shown

    status, shown, error = last_words(start(config, "policy.lora_rank=4"))
    assert status == 2 and re.match(
        r"awares grpo: checkpoint .* holds a model with parameters \w+; this run's have \w+ .*delete ", error
    ), shown

    before = len(rows.read_text().splitlines())
    status, shown, _ = last_words(start(config))
    assert status == 0, shown
    assert [row.step for row in metrics.read(rows)] == list(range(STEPS))
    resumed = [json.loads(line)["step"] for line in rows.read_text().splitlines()[before:]]
    assert 1 <= resumed[0] <= before  # from a checkpoint, not from the start
