"""What the endpoint counts for Prometheus: requests by outcome, their time, visual tokens, crops. Silent where no Ray is connected.

The token ratio over any time is rate(ray_awares_serve_visual_tokens_total) / rate(ray_awares_serve_full_tokens_total).
"""

from functools import cached_property
from typing import Any

from awares_platform.runtime.prometheus import Quiet
from awares_platform.serve.croploop import Answer

LATENCY_S = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the latency histogram's buckets: the paper's means per benchmark lie between 0.5 and 0.81 s."""
OK = "ok"
GONE = 499
"""Status that is recorded when the client went away before its answer."""


class EndpointMeter:
    """Counts what one replica does."""

    def __init__(self) -> None:
        self._quietly = Quiet()

    def answered(self, answer: Answer, seconds: float) -> None:
        """A finished episode went to its client."""

        def export() -> None:
            self._finish(200, OK, seconds)
            self._counters["answers"].inc(1, tags={"stop": answer.episode.stop.value})
            _add(self._counters["visual_tokens"], answer.episode.visual_tokens)
            _add(self._counters["full_tokens"], full_tokens(answer))
            for crop in answer.episode.crops:
                self._counters["crops"].inc(1, tags={"crop": crop.value})

        self._quietly(export)

    def refused(self, status: int, code: str, seconds: float) -> None:
        """A request ended without an answer; `code` is what the client was told."""
        self._quietly(lambda: self._finish(status, code, seconds))

    def _finish(self, status: int, code: str, seconds: float) -> None:
        self._counters["requests"].inc(1, tags={"status": str(status), "code": code})
        self._latency.observe(seconds, tags={"status": str(status)})

    @cached_property
    def _counters(self) -> dict[str, Any]:
        from ray.serve import metrics

        Counter: Any = metrics.Counter  # its annotation knows tuples of one tag only
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


def full_tokens(answer: Answer) -> int:
    """Visual tokens of the whole image: what the episode took over its share."""
    ratio = answer.episode.rtr_token
    return round(answer.episode.visual_tokens / ratio) if ratio > 0 else 0


def _add(counter: Any, count: int) -> None:
    if count > 0:  # Ray refuses to add nothing
        counter.inc(count)
