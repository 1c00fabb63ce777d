"""Values for Prometheus, through the metrics agent of the Ray node that this process belongs to.

    Run.metrics({"reward/mean": 8.4}) ── Gauges ── Ray's agent ── :8080/metrics ── ray_awares_reward_mean{job="grpo", run="awares-7b"} 8.4
    an answered request ── serve/meter.py ──┘

Where no Ray is connected nothing is exported and Ray is not imported. An exporter that fails is logged once, and the run goes on.
"""

import logging
import math
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

log = logging.getLogger(__name__)
PREFIX = "awares"
"""Ray puts its own `ray_` before it."""


def connected() -> bool:
    """Whether this process is a driver or worker of a running Ray, found out without importing it."""
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized()


def metric_name(key: str) -> str:
    """The name under which a value is handed to Ray.

    Example:
        metric_name("reward/mean")  # "awares_reward_mean"
    """
    return re.sub(r"[^A-Za-z0-9_]", "_", f"{PREFIX}_{key}")


class Quiet:
    """Calls an exporter while Ray is connected; after its first failure never again."""

    def __init__(self) -> None:
        self._failed = False

    def __call__(self, export: Callable[[], None]) -> None:
        """Run `export`, whatever it raises."""
        if self._failed or not connected():
            return
        try:
            export()
        except (
            Exception
        ) as error:  # telemetry never stops a run, and Ray names no exception of its own for this
            self._failed = True
            log.warning(
                "values for Prometheus are not exported (%s: %s); the run goes on",
                type(error).__name__,
                error,
            )


class Gauges:
    """The newest value of everything that one job of a run reports."""

    def __init__(self, job: str, run: str) -> None:
        self._tags = {"job": job, "run": run}
        self._gauges: dict[str, Any] = {}
        self._quietly = Quiet()

    def report(self, values: Mapping[str, float]) -> None:
        """Set a gauge per value; keys are "area/name". A value that is not finite leaves its gauge as it was."""
        self._quietly(lambda: self._set(values))

    def _set(self, values: Mapping[str, float]) -> None:
        for key, value in values.items():
            if math.isfinite(value):
                self._gauge(key).set(float(value), tags=self._tags)

    def _gauge(self, key: str) -> Any:
        from ray.util.metrics import Gauge

        if key not in self._gauges:
            description = f"{key} as the run's metrics.jsonl has it, of the newest step"
            self._gauges[key] = Gauge(
                metric_name(key), description=description, tag_keys=tuple(self._tags)
            )
        return self._gauges[key]
