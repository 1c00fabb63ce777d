"""Tests that the benchmark of the controller runs, with two simulated actors.

The test fails if the real actors or workers get another interface than the simulated ones.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration
REPOSITORY = Path(__file__).parents[2]
OPTIONS = "--quick --actors 2 --step 4 --rate 40 --reward-ms 5 --json".split()


def test_the_benchmark_of_the_controller_runs(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    run = subprocess.run(
        [sys.executable, "tests/benchmarks/control.py", *OPTIONS, str(figures)],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([".", "platform"])},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    [found] = json.loads(figures.read_text())
    # The simulated learner takes at most 40 groups per second, and fewer on a busy machine.
    assert found["actors"] == 2 and 0 < found["groups_s"] < 45
    assert found["cpu_ms"] >= found["loop_ms"] > 0
    assert "| 2 |" in run.stdout
