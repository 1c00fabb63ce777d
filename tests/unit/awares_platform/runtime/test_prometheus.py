"""Tests that metrics become Ray gauges, and that nothing is exported without a connected Ray."""

import logging
import subprocess
import sys
from types import SimpleNamespace

import pytest

from awares_platform.runtime import prometheus
from awares_platform.runtime.prometheus import Gauges, Quiet, metric_name


@pytest.fixture
def ray_connected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prometheus, "connected", lambda: True)


class FakeGauge:
    """A fake gauge that stores its last value in `kept`, by metric name, job and run."""

    kept: dict[tuple[str, str, str], float]

    def __init__(self, name: str, description: str, tag_keys: tuple[str, ...]) -> None:
        self.name, self.tag_keys = name, tag_keys

    def set(self, value: float, tags: dict[str, str]) -> None:
        assert set(tags) == set(self.tag_keys)
        self.kept[self.name, tags["job"], tags["run"]] = value


def test_each_value_is_a_gauge_of_job_and_run(
    ray_connected: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeGauge.kept = {}
    monkeypatch.setattr("ray.util.metrics.Gauge", FakeGauge)
    gauges = Gauges("grpo", "awares-7b")
    gauges.report({"reward/mean": 7.5, "time/step": 12})
    gauges.report({"reward/mean": 8.25, "time/step": float("nan")})
    assert FakeGauge.kept == {
        ("awares_reward_mean", "grpo", "awares-7b"): 8.25,
        ("awares_time_step", "grpo", "awares-7b"): 12.0,
    }


def test_names_hold_only_what_prometheus_takes() -> None:
    assert metric_name("accuracy/p@1.5-b") == "awares_accuracy_p_1_5_b"


def test_an_exporter_that_fails_is_logged_once_and_stops_nothing(
    ray_connected: None, caplog: pytest.LogCaptureFixture
) -> None:
    calls = []

    def export() -> None:
        calls.append(1)
        raise RuntimeError("agent gone")

    quietly = Quiet()
    with caplog.at_level(logging.WARNING):
        quietly(export)
        quietly(export)
    assert calls == [1]
    assert [record.getMessage() for record in caplog.records] == [
        "values for Prometheus are not exported (RuntimeError: agent gone); the run goes on"
    ]


def test_nothing_is_exported_without_a_connected_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    for module in (None, SimpleNamespace(is_initialized=lambda: False)):
        monkeypatch.setitem(sys.modules, "ray", module)
        Quiet()(lambda: calls.append(1))
    assert calls == []
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: True))
    Quiet()(lambda: calls.append(1))
    assert calls == [1]


def test_metrics_do_not_import_ray() -> None:
    code = (
        "import sys, tempfile, pathlib;"
        "from awares_platform.runtime.metrics import MetricsWriter;"
        "from awares_platform.runtime.prometheus import Gauges;"
        "directory = pathlib.Path(tempfile.mkdtemp());"
        "MetricsWriter(directory, Gauges('sft', 'r')).report(1, {'loss/sft': 2.0});"
        "from awares_platform.serve.metrics import EndpointMetrics;"
        "EndpointMetrics().refused(401, 'unauthorized', 0.1);"
        "print('ray' in sys.modules)"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert said.strip() == "False"
