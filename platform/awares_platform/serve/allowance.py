"""Counts what each API key uses, and refuses requests over the limits of a key.

    replica -- Counts.admit, Counts.spend --> Allowances, one deployment for all replicas

The Allowances actor holds the counts in memory. If Ray Serve replaces it, all counts restart at 0.
"""

import asyncio
import logging
import math
import time
from dataclasses import dataclass
from typing import Any

from limits import RateLimitItemPerDay, RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from awares_platform.serve.errors import RequestError
from awares_platform.serve.keys import ApiKey

log = logging.getLogger(__name__)
DAY_S = 24 * 60 * 60
PATIENCE_S = 2.0
"""Seconds for which a replica waits for the shared counts before it admits a request anyway."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """The reason why a key may not send a request now, and the seconds until it may.

    Example:
        Refusal("rate_limit_exceeded", "key team-a may send 60 requests a minute", 12)
    """

    code: str
    message: str
    retry_after_s: int


class Allowances:
    """Counts the requests and the visual tokens of each key. All replicas share one instance.

    Requests are limited per 60 seconds, and visual tokens per 24 hours.

    Example:
        allowances = Allowances()
        await allowances.admit("team-a", requests_per_minute=60, visual_tokens_per_day=None)
    """

    def __init__(self) -> None:
        self._storage = MemoryStorage()
        self._window = MovingWindowRateLimiter(self._storage)

    async def admit(
        self, name: str, requests_per_minute: int | None, visual_tokens_per_day: int | None
    ) -> Refusal | None:
        """Count a request of the key `name`. If the key is over a limit, return a Refusal instead.

        The last answer of a day can exceed the limit, because its visual tokens are known only
        afterwards.
        """
        day = _day(name)
        if visual_tokens_per_day is not None:
            used = self._storage.get(day)
            if used >= visual_tokens_per_day:
                wait = self._storage.get_expiry(day) - time.time()
                message = (
                    f"key {name} has used {used} of {visual_tokens_per_day} visual tokens a day"
                )
                return Refusal("insufficient_quota", message, _seconds(wait))
        if requests_per_minute is not None:
            item = RateLimitItemPerMinute(requests_per_minute)
            if not self._window.hit(item, name):
                wait = self._window.get_window_stats(item, name).reset_time - time.time()
                message = f"key {name} may send {requests_per_minute} requests a minute"
                return Refusal("rate_limit_exceeded", message, _seconds(wait))
        return None

    async def spend(self, name: str, visual_tokens: int) -> None:
        """Count the visual tokens of an answer."""
        self._storage.incr(_day(name), DAY_S, visual_tokens)


class Counts:
    """Calls the Allowances deployment through its Ray Serve handle, `handle`.

    If the deployment does not answer within PATIENCE_S seconds, the request is admitted. Missing
    counts must not stop the endpoint.

    Example:
        await Counts(handle).admit(key)
    """

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    async def admit(self, key: ApiKey) -> Refusal | None:
        """Count a request of `key`. If the key is over a limit, return a Refusal instead."""
        if key.limits == (None, None):
            return None
        return await self._call(self._handle.admit, key.name, *key.limits)

    async def spend(self, key: ApiKey, visual_tokens: int) -> None:
        """Count the visual tokens of an answer, if the key has a limit of visual tokens."""
        if key.visual_tokens_per_day is not None:
            await self._call(self._handle.spend, key.name, visual_tokens)

    async def _call(self, method: Any, *arguments: Any) -> Any:
        try:
            return await asyncio.wait_for(method.remote(*arguments), PATIENCE_S)
        # If the counting fails, clients must still get their answers.
        except Exception as error:
            log.warning("the counts of the API keys are not reachable: %r", error)
            return None


def refused(refusal: Refusal) -> RequestError:
    """Return the error (429) that a refused client gets."""
    message = f"{refusal.message}; try again in {refusal.retry_after_s} s"
    return RequestError(message, status=429, code=refusal.code, retry_after_s=refusal.retry_after_s)


def _day(name: str) -> str:
    return RateLimitItemPerDay(1).key_for("visual-tokens", name)


def _seconds(wait: float) -> int:
    return max(1, math.ceil(wait))
