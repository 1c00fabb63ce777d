"""Tests that the metrics page of a real Ray node shows the metrics of a run and of an endpoint."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from awares_platform.runtime.ports import free_port

pytestmark = [pytest.mark.integration, pytest.mark.slow]
ROOT = Path(__file__).parents[2]


def _value(page: str, name: str, *labels: str) -> float:
    """Return the value of the only series with this name and these labels."""
    lines = [
        line
        for line in page.splitlines()
        if line.startswith(f"{name}{{") and all(label in line for label in labels)
    ]
    assert len(lines) == 1, f"{name} {labels}: {lines}"
    return float(re.split(r"\s", lines[0])[-1])


def test_the_metrics_page_has_what_a_run_and_the_endpoint_report(tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(ROOT / "tests/integration/exporting_driver.py"),
        str(tmp_path),
        str(free_port()),
    ]
    environment = {
        **os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'platform'}",
        "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0",
    }  # fmt: skip
    environment.pop("RAY_ADDRESS", None)
    page = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True, timeout=180
    ).stdout
    assert _value(page, "ray_awares_reward_mean", 'job="grpo"', 'run="seven"') == 8.25
    assert (
        _value(page, "ray_awares_serve_requests_total", 'status="401"', 'code="unauthorized"') == 1
    )
    assert _value(page, "ray_awares_serve_latency_seconds_bucket", 'status="401"', 'le="0.2"') == 0
    assert _value(page, "ray_awares_serve_latency_seconds_bucket", 'status="401"', 'le="0.3"') == 1
