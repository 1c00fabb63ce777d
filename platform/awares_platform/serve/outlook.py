"""Tells a proxy whether the application can answer, and whether the endpoint is stopping."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from enum import Enum, auto

_FRESH_S = 1.0
_ASK_S = 3.0
_POLL_S = 0.5


class Availability(Enum):
    """Whether the application can answer requests."""

    READY = auto()
    """A replica runs, or a request would start one."""
    UPDATING = auto()
    """No replica runs, but Serve starts replicas after a recent change of the application."""
    AWAY = auto()
    """No replica runs, and Serve may need long to start one."""


class Outlook:
    """The state of the application and of the endpoint, as one proxy sees it.

    - `available` returns the application's availability.
    - `draining` returns whether the endpoint is stopping. `stopping` keeps the last result.
    - `report` gets `ongoing`, the number of requests in flight, while the endpoint is stopping.

    These functions may block.

    Example:
        Outlook(available=availability, draining=draining.draining, report=report)
    """

    def __init__(
        self,
        available: Callable[[], Availability],
        draining: Callable[[], bool],
        report: Callable[[int], None],
    ) -> None:
        self._available, self._draining, self._report = available, draining, report
        self._asked: asyncio.Task[Availability] | None = None
        self._answered = -_FRESH_S
        self._poll: asyncio.Task[None] | None = None
        self.stopping = False
        self.ongoing = 0

    async def availability(self) -> Availability | None:
        """Return the application's availability, or None if Ray fails or does not reply in time."""
        stale = time.monotonic() - self._answered > _FRESH_S
        if self._asked is None or (stale and self._asked.done()):
            self._asked = asyncio.create_task(self._ask())
        done, _ = await asyncio.wait({self._asked}, timeout=_ASK_S)
        return self._asked.result() if done and not self._asked.exception() else None

    async def _ask(self) -> Availability:
        answer = await asyncio.to_thread(self._available)
        self._answered = time.monotonic()
        return answer

    def watch(self) -> None:
        """Start the task that polls whether the endpoint is stopping, unless it already runs."""
        if self._poll is None:
            self._poll = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        while True:
            # Ray's head node may be unreachable for a while. The next round tries again.
            with contextlib.suppress(Exception):
                self.stopping = await asyncio.to_thread(self._draining)
                if self.stopping:
                    await asyncio.to_thread(self._report, self.ongoing)
            await asyncio.sleep(_POLL_S)
