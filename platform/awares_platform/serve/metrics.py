"""Exports the endpoint's metrics to Prometheus: a latency histogram and several counters.

This query returns the retained token ratio:

    sum(rate(ray_awares_serve_visual_tokens_total[5m]))
        / sum(rate(ray_awares_serve_full_tokens_total[5m]))
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from awares.environment import count_regions
from awares_platform.runtime.prometheus import Quiet
from awares_platform.serve.croploop import ServedAnswer

LATENCY_S = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the latency histogram's buckets, in seconds.

The mean latencies that the paper reports for its benchmarks, 0.5 to 0.81 s, are in the middle.
"""
OK = "ok"
GONE = 499
"""The HTTP status of a request whose client disconnected before the answer."""


_RECOVERED = "Detours on the way to an answer, such as an unreadable request"
_COUNTERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "awares_serve_requests": ("Requests by HTTP status and error code", ("status", "code")),
    "awares_serve_answers": ("Answers by how they ended", ("stop",)),
    "awares_serve_recoveries": (_RECOVERED, ("kind",)),
    "awares_serve_visual_tokens": ("Visual tokens that the policy looked at", ()),
    "awares_serve_full_tokens": ("Visual tokens that the same images have at full resolution", ()),
    "awares_serve_prompt_tokens": ("Tokens of the prompts of all rounds", ()),
    "awares_serve_cached_tokens": ("Tokens of these prompts that the engine had cached", ()),
    "awares_serve_crops": ("Crops that the policy asked for", ("crop",)),
}
_LATENCY = "Time of a request in its replica"


class EndpointMetrics:
    """The metrics of one replica, for Ray's metrics agent and for the replica's GET /metrics.

    The metrics count the crops of each region in `regions` separately. All other regions share one
    count.
    """

    def __init__(self, regions: Sequence[str] = ()) -> None:
        self._regions, self._quietly = regions, Quiet()
        self._own = _OwnMetrics()

    def answered(self, answers: Sequence[ServedAnswer], seconds: float) -> None:
        """Count an answered request that took `seconds`. `answers` holds one answer per choice."""
        self._finish(200, OK, seconds)
        for answer in answers:
            self._count(
                "awares_serve_answers", 1, stop="length" if answer.finish == "length" else "answer"
            )
            self._count("awares_serve_visual_tokens", answer.visual_tokens)
            self._count("awares_serve_full_tokens", answer.full_tokens)
            self._count("awares_serve_prompt_tokens", answer.played.prompted)
            self._count("awares_serve_cached_tokens", answer.played.reused)
            for kind in answer.played.recoveries:
                self._count("awares_serve_recoveries", 1, kind=kind)
            for region, count in count_regions(answer.played.regions, self._regions).items():
                self._count("awares_serve_crops", count, crop=region)

    def refused(self, status: int, code: str, seconds: float) -> None:
        """Count a request without an answer. `code` is the error code of the response."""
        self._finish(status, code, seconds)

    def page(self) -> tuple[bytes, str]:
        """Return the response to GET /metrics in Prometheus's text format, and its content type."""
        from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

        return generate_latest(self._own.registry), CONTENT_TYPE_LATEST

    def _finish(self, status: int, code: str, seconds: float) -> None:
        self._count("awares_serve_requests", 1, status=str(status), code=code)
        tags = {"status": str(status)}
        self._own.latency.labels(**tags).observe(seconds)
        self._quietly(lambda: self._latency.observe(seconds, tags=tags))

    def _count(self, name: str, count: int, **tags: str) -> None:
        # Ray raises an error if a counter is increased by 0.
        if count > 0:
            self._own.count(name, count, tags)
            self._quietly(lambda: self._counters[name].inc(count, tags=tags))

    @cached_property
    def _counters(self) -> dict[str, Any]:
        from ray.serve import metrics

        # The type is Any, because Counter's own annotation wrongly demands exactly one tag.
        Counter: Any = metrics.Counter
        return {name: Counter(name, text, tags) for name, (text, tags) in _COUNTERS.items()}

    @cached_property
    def _latency(self) -> Any:
        from ray.serve import metrics

        return metrics.Histogram(
            "awares_serve_latency_seconds", _LATENCY, [*LATENCY_S], ("status",)
        )


class _OwnMetrics:
    """The metrics for the replica's GET /metrics. They work without Ray."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Histogram

        self.registry = CollectorRegistry()
        self._counters = {
            name: Counter(name, text, tags, registry=self.registry)
            for name, (text, tags) in _COUNTERS.items()
        }
        self.latency = Histogram(
            "awares_serve_latency_seconds",
            _LATENCY,
            ("status",),
            buckets=LATENCY_S,
            registry=self.registry,
        )

    def count(self, name: str, count: int, tags: dict[str, str]) -> None:
        """Increase a counter by `count`."""
        counter = self._counters[name]
        (counter.labels(**tags) if tags else counter).inc(count)
