"""Keeps a client of an endpoint below a rate of requests and of tokens."""

import asyncio
import time


class RateLimit:
    """Spaces requests evenly. A limit of 0 sets no limit.

    The tokens of a reply delay later requests, because their number is known only when the reply
    arrives.

    Example:
        limit = RateLimit(requests_per_minute=600, tokens_per_minute=0)
        await limit.wait()
    """

    def __init__(self, requests_per_minute: int, tokens_per_minute: int) -> None:
        self._request_s = 60 / requests_per_minute if requests_per_minute else 0.0
        self._token_s = 60 / tokens_per_minute if tokens_per_minute else 0.0
        self._requests_free = self._tokens_free = self._resumed = 0.0

    async def wait(self) -> None:
        """Wait until the next request may be sent, and count this request."""
        while True:
            now = time.monotonic()
            if (free := max(self._requests_free, self._tokens_free, self._resumed)) <= now:
                break
            await asyncio.sleep(free - now)
        self._requests_free = now + self._request_s

    def spend(self, tokens: int) -> None:
        """Count the tokens of a reply, which delay later requests."""
        self._tokens_free = max(self._tokens_free, time.monotonic()) + tokens * self._token_s

    def pause(self, seconds: float) -> None:
        """Send no request for the next `seconds`."""
        self._resumed = max(self._resumed, time.monotonic() + seconds)
