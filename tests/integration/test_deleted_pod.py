"""Tests that Ray announces the loss of a node whose pod Kubernetes deletes.

After SIGTERM, `ray start` waits until the node is idle, but no longer than the time that the chart
sets.
"""

import os
import secrets
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

import pytest

from tests.faults.cluster import cluster
from tests.integration import draining_driver
from tests.processes import gone

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(300)]
DRAIN_S = 30.0
ROOT = Path(__file__).parents[2]


def test_a_deleted_pod_ends_when_its_actor_has_handed_back_its_work() -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}:{ROOT / 'platform'}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": str(DRAIN_S),
    }
    with cluster(environment) as nodes:
        driver = subprocess.Popen(
            [sys.executable, draining_driver.__file__],
            env={**environment, "RAY_ADDRESS": nodes.address},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert driver.stdout is not None
        try:
            assert said(driver.stdout) == "runs"
            deleted = time.monotonic()
            pod = nodes.delete_node()
            assert said(driver.stdout) == "notice"
            noticed = time.monotonic() - deleted
            assert said(driver.stdout) == "handed back"
            assert not gone([pod], DRAIN_S)
            ended = time.monotonic() - deleted
            print(f"notice after {noticed:.1f} s, the end of the pod after {ended:.1f} s")
            assert noticed < 5 and ended < DRAIN_S - 5
            assert said(driver.stdout) == "gone" and driver.wait(10) == 0
        finally:
            driver.kill()
            driver.wait()


def said(lines: IO[str]) -> str:
    """Return the next line."""
    return lines.readline().strip()
