"""Limits the total number of pixels of the decoded images that requests in flight hold."""

import asyncio
from collections import deque

from awares_platform.serve.errors import RequestError


class Admission:
    """Admits requests in the order of arrival. Together, they hold at most `most` pixels.

    Example:
        admission = Admission(160_000_000)
        await admission.enter(48_000_000)
        try:
            ...
        finally:
            admission.leave(48_000_000)
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def held(self) -> int:
        """The number of pixels of all requests that are admitted and have not left."""
        return self._held

    async def enter(self, pixels: int) -> None:
        """Wait until a request with `pixels` pixels fits under the limit, then admit it.

        Raises RequestError (413) if `pixels` alone exceeds the limit.
        """
        if pixels > self._most:
            raise RequestError(
                f"the images have {pixels} pixels together; send at most {self._most}",
                status=413,
                param="messages",
                code="too_many_pixels",
            )
        if not self._waiting and self._held + pixels <= self._most:
            self._held += pixels
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((pixels, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave(pixels)
            else:
                self._admit()
            raise

    def leave(self, pixels: int) -> None:
        """Release the pixels of a request, and admit the waiting requests that now fit."""
        self._held -= pixels
        self._admit()

    def _admit(self) -> None:
        while self._waiting:
            pixels, turn = self._waiting[0]
            if not turn.cancelled():
                if self._held + pixels > self._most:
                    return
                self._held += pixels
                turn.set_result(None)
            self._waiting.popleft()
