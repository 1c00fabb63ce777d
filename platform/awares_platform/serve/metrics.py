"""Exports the endpoint's metrics to Prometheus.

The metrics are requests by outcome, latency, visual tokens, answers by how they ended, and crops.

Without a connection to Ray, this module counts nothing. A query for the retained token ratio is:

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

The paper's mean latencies per benchmark lie between 0.5 and 0.81 s.
"""
OK = "ok"
GONE = 499
"""The HTTP status of a request whose client disconnected before the answer."""


class EndpointMetrics:
    """The metrics of one replica.

    The metrics count the crops of each region in `regions` separately. All other regions share one
    count.
    """

    def __init__(self, regions: Sequence[str] = ()) -> None:
        self._regions, self._quietly = regions, Quiet()

    def answered(self, answer: ServedAnswer, seconds: float) -> None:
        """Count an answered request that took `seconds`."""

        def export() -> None:
            self._finish(200, OK, seconds)
            self._counters["answers"].inc(1, tags={"stop": answer.episode.stop.value})
            _add(self._counters["visual_tokens"], answer.episode.visual_tokens)
            _add(self._counters["full_tokens"], full_tokens(answer))
            counts = count_regions(answer.episode.crops, self._regions)
            for region, count in counts.items():
                _add(self._counters["crops"], count, {"crop": region})

        self._quietly(export)

    def refused(self, status: int, code: str, seconds: float) -> None:
        """Count a request without an answer. `code` is the error code of the response."""
        self._quietly(lambda: self._finish(status, code, seconds))

    def _finish(self, status: int, code: str, seconds: float) -> None:
        self._counters["requests"].inc(1, tags={"status": str(status), "code": code})
        self._latency.observe(seconds, tags={"status": str(status)})

    @cached_property
    def _counters(self) -> dict[str, Any]:
        from ray.serve import metrics

        # The type is Any, because Counter's own annotation wrongly demands exactly one tag.
        Counter: Any = metrics.Counter
        return {
            "requests": Counter(
                "awares_serve_requests",
                "Requests by HTTP status and error code",
                ("status", "code"),
            ),
            "answers": Counter("awares_serve_answers", "Episodes by how they ended", ("stop",)),
            "visual_tokens": Counter(
                "awares_serve_visual_tokens", "Visual tokens that the policy looked at"
            ),
            "full_tokens": Counter(
                "awares_serve_full_tokens",
                "Visual tokens that the same images have at full resolution",
            ),
            "crops": Counter("awares_serve_crops", "Crops that the policy asked for", ("crop",)),
        }

    @cached_property
    def _latency(self) -> Any:
        from ray.serve import metrics

        return metrics.Histogram(
            "awares_serve_latency_seconds",
            "Time of a request in its replica",
            [*LATENCY_S],
            ("status",),
        )


def full_tokens(answer: ServedAnswer) -> int:
    """Return the number of visual tokens that the whole image has at full resolution.

    The number is the episode's `visual_tokens` divided by the episode's `rtr_token`.
    """
    ratio = answer.episode.rtr_token
    return round(answer.episode.visual_tokens / ratio) if ratio > 0 else 0


def _add(counter: Any, count: int, tags: dict[str, str] | None = None) -> None:
    # Ray raises an error if a counter is increased by 0.
    if count > 0:
        counter.inc(count, tags=tags)
