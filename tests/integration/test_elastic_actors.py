"""Tests that Ray's own autoscaler adds and removes nodes as a run starts and ends its actors."""

import json
import os
import secrets
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from awares_platform.store import ObjectStore
from tests.integration.elastic_driver import GROUPS, GROUPS_IN_FLIGHT, STALENESS, Trained
from tests.integration.waiting_rollout import LENGTH
from tests.processes import family, kill

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(300)]
ROOT = Path(__file__).parents[2]


def driven(store: ObjectStore) -> tuple[Trained, str]:
    """Run elastic_driver.py, and return what it has trained and what it has logged."""
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'platform'}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_worker_niceness": "0",
    }
    environment.pop("RAY_ADDRESS", None)
    command = [sys.executable, str(ROOT / "tests/integration/elastic_driver.py")]
    driver = subprocess.Popen(
        [*command, store.config.model_dump_json()],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        shown, logged = driver.communicate(timeout=240)
    finally:
        if driver.poll() is None:
            kill(family(psutil.Process(driver.pid)))
    assert driver.returncode == 0, logged
    return Trained(**json.loads(shown.splitlines()[-1])), logged


def test_actors_and_their_nodes_come_and_go(store: ObjectStore) -> None:
    """Check that the autoscaler adds a node for each wanted actor, and removes each idle node.

    The run neither loses a group nor trains one twice, although actors leave during their groups.
    """
    trained, logged = driven(store)
    print(trained.seconds, f"{len(trained.prompts)} groups")
    assert trained.losses == 0
    assert len({*trained.prompts}) == len(trained.prompts)
    # Only the newest groups may be unfinished at the end of the run.
    missing = {*range(max(trained.prompts))} - {*trained.prompts}
    newest = 2 * GROUPS_IN_FLIGHT + (STALENESS + 1) * GROUPS
    assert all(number > max(trained.prompts) - newest for number in missing), missing
    assert all(len(sampled) == LENGTH for sampled in trained.sampled)
    # Each actor samples its own process id as its tokens. Two ids in one group thus mean that one
    # actor began the group and another one ended it.
    continued = [sampled for sampled in trained.sampled if len({*sampled}) > 1]
    print(f"{len(continued)} groups were continued by another actor")
    assert continued
    assert "the run wants 1 instead of 2 rollout actors" in logged
    assert "the run wants 2 instead of 1 rollout actors" in logged
    assert "did not hand back" not in logged
