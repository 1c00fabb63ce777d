"""Measures how busy an engine is: the time with requests in flight, and the number of tokens."""

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EngineUsage:
    """What an engine has done since its start, until the time `at`.

    Example:
        EngineUsage("3f9a...", at=120.5, busy_s=80.0, request_s=900.0, sampled=4096, prompted=9000)
    """

    engine: str
    """The identifier of the engine."""
    at: float
    """The time in seconds, on a clock of the process that uses the engine."""
    busy_s: float
    """The number of seconds in which at least one request was in flight."""
    request_s: float
    """The sum of the durations of all requests, in seconds."""
    sampled: int
    """The number of sampled tokens of finished requests."""
    prompted: int
    """The number of prompt tokens, in which an image counts as one token."""


class UsageMeter:
    """Measures the busy time of one engine, and counts the tokens of its requests."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine, self._clock = uuid.uuid4().hex, clock
        self._last = clock()
        self._running = self._sampled = self._prompted = 0
        self._busy_s = self._request_s = 0.0

    def began(self, prompted: int) -> None:
        """Record that a request with this number of prompt tokens starts."""
        self._advance()
        self._running += 1
        self._prompted += prompted

    def ended(self, sampled: int) -> None:
        """Record that a request ends after this number of sampled tokens."""
        self._advance()
        self._running -= 1
        self._sampled += sampled

    def read(self) -> EngineUsage:
        """Return what the engine has done until now."""
        self._advance()
        return EngineUsage(
            self._engine,
            at=self._last,
            busy_s=self._busy_s,
            request_s=self._request_s,
            sampled=self._sampled,
            prompted=self._prompted,
        )

    def _advance(self) -> None:
        now = self._clock()
        passed, self._last = now - self._last, now
        self._busy_s += passed if self._running else 0.0
        self._request_s += passed * self._running
