"""Exports metrics to Prometheus through the metrics agent of this process's Ray node.

    Run.metrics({"reward/mean": 8.4}) -- Gauges ----------+-- Ray's agent -- :8080/metrics
    a request to the endpoint -- serve/metrics.py --------+

Prometheus then holds, for example, ray_awares_reward_mean{job="grpo", run="awares-7b"} 8.4.

If this process is not connected to Ray, this module exports nothing.
"""

import logging
import math
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

log = logging.getLogger(__name__)
PREFIX = "awares"
"""The prefix of every metric's name. Ray puts its own prefix `ray_` before it."""


def connected() -> bool:
    """Return whether this process is a driver or worker of a running Ray. Does not import Ray."""
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized()


def metric_name(key: str) -> str:
    """Return the name of a metric in Ray, without Ray's prefix.

    Example:
        metric_name("reward/mean")  # "awares_reward_mean"
    """
    return re.sub(r"[^A-Za-z0-9_]", "_", f"{PREFIX}_{key}")


class Quiet:
    """Calls functions that export metrics, and never raises their errors.

    After the first error, or without a connection to Ray, the object calls no function.
    """

    def __init__(self) -> None:
        self._failed = False

    def __call__(self, export: Callable[[], None]) -> None:
        """Run `export`. Log an exception instead of raising it."""
        if self._failed or not connected():
            return
        try:
            export()
        # Ray does not document its exceptions, and a failed export must not stop a run.
        except Exception as error:
            self._failed = True
            message = "values for Prometheus are not exported (%s: %s); the run goes on"
            log.warning(message, type(error).__name__, error)


class Gauges:
    """One gauge for each metric of a job. A gauge holds the newest value of its metric."""

    def __init__(self, job: str, run: str) -> None:
        self._tags = {"job": job, "run": run}
        self._gauges: dict[str, Any] = {}
        self._quietly = Quiet()

    def report(self, values: Mapping[str, float]) -> None:
        """Set the gauge of each key, such as "reward/mean". Skip values that are not finite."""
        self._quietly(lambda: self._set(values))

    def _set(self, values: Mapping[str, float]) -> None:
        for key, value in values.items():
            if math.isfinite(value):
                self._gauge(key).set(float(value), tags=self._tags)

    def _gauge(self, key: str) -> Any:
        from ray.util.metrics import Gauge

        if key not in self._gauges:
            description = f"{key} of the newest step, as in the run's metrics.jsonl"
            name, tags = metric_name(key), tuple(self._tags)
            self._gauges[key] = Gauge(name, description=description, tag_keys=tags)
        return self._gauges[key]
