"""Tests that the quickstart's setup passes `awares doctor` with a real store, engine and learner.

A second test runs `awares doctor` where the store is down and the cluster has no GPU.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from awares_platform.store import ObjectStore

pytestmark = [pytest.mark.integration, pytest.mark.slow]

AWARES = "from awares_platform.cli.main import main; main()"
PASSED = {
    "run directory",
    "nodes",
    "disk",
    "shared memory",
    "clock",
    "store",
    "conditional writes",
    "all-reduce",
    "trainer",
    "engine",
    "update of whole weights",
    "update of an adapter",
    "clean-up",
}
"""The checks that must pass. "store rates" may warn, because rates depend on the machine's load."""
SKIPPED = {"GPU", "judge", "grounding"}


def doctor(directory: Path, *arguments: str) -> tuple[subprocess.CompletedProcess[str], dict]:
    """Run `awares doctor`, and return the process and the content of doctor.json."""
    path = directory / "copy.json"
    command = [sys.executable, "-c", AWARES, "doctor", f"run.directory={directory}/runs"]
    done = subprocess.run(
        [*command, *arguments, "--json", str(path)], capture_output=True, text=True, cwd=directory
    )
    print(done.stdout, done.stderr)
    assert path.read_text() == (directory / "runs" / "mini" / "doctor.json").read_text()
    return done, json.loads(path.read_text())


def test_the_setup_of_the_quickstart_passes(store: ObjectStore, tmp_path: Path) -> None:
    place = [f"store.url={store.config.url}", f"store.endpoint={store.config.endpoint}"]
    # Other tests may share the machine, so the limit is longer than the default of two minutes.
    done, content = doctor(tmp_path, *place, "--seconds", "300")
    statuses = {one["check"]: one["status"] for one in content["findings"]}
    assert done.returncode == 0
    assert {check for check, status in statuses.items() if status == "pass"} >= PASSED
    assert {check for check, status in statuses.items() if status == "skip"} == SKIPPED
    assert content["status"] in ("pass", "warn")
    metrics = {one["check"]: one["metrics"] for one in content["findings"]}
    for check in ("update of whole weights", "update of an adapter"):
        assert metrics[check]["canary_slope"] == pytest.approx(1, abs=0.05)
        assert metrics[check]["canary_change_nats"] > 0.2
        assert metrics[check]["bytes"] > 0
    assert metrics["store rates"]["put_mb_per_s"] > 0
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in done.stdout + done.stderr + str(content)
    assert [info.key for info in store.list()] == ["runs/mini/doctor.json"]
    assert json.loads(store.get("runs/mini/doctor.json")) == content


def test_faults_are_findings_and_the_other_checks_run(tmp_path: Path) -> None:
    """The store does not answer, no node has a GPU, and the judge's port is closed."""
    done, content = doctor(
        tmp_path,
        "store.endpoint=http://127.0.0.1:9",
        "store.retry_budget_s=1",
        "grpo.learner_gpus=1",
        "curate.judge=endpoint",
        "curate.both_wrong=LR",
        "curate.judge_endpoint.url=http://127.0.0.1:9/v1",
        "curate.judge_endpoint.model=m",
        "curate.judge_endpoint.retry_budget_s=1",
    )
    found = {one["check"]: one for one in content["findings"]}
    assert done.returncode == 1 and content["status"] == "fail"
    assert {check for check, one in found.items() if one["status"] == "fail"} == {
        "nodes",
        "store",
        "judge",
    }
    assert "1 x (1 CPU, 1 GPU)" in found["nodes"]["found"]
    assert "0 GPU (0 free)" in found["nodes"]["found"]
    assert "check store.endpoint" in found["store"]["found"]
    assert "http://127.0.0.1:9/v1/chat/completions is unreachable" in found["judge"]["found"]
    assert all(one["remedy"] for one in found.values() if one["status"] in ("warn", "fail"))
    assert found["disk"]["status"] == found["run directory"]["status"] == "pass"
    assert {"clock", "trainer", "engine", "conditional writes"} <= {
        check for check, one in found.items() if one["status"] == "skip"
    }


def test_a_wrong_setup_has_status_2(tmp_path: Path) -> None:
    command = [sys.executable, "-c", AWARES, "doctor", "method.environment=no_such_module:Crops"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2 and "no_such_module" in done.stderr
    assert not (tmp_path / "runs").exists()
