"""Holds the metrics of finished steps until the driver has written them."""

import asyncio
from collections import deque

StepRow = tuple[int, dict[str, float]]
"""The number of a step, counted from 0, and its metrics."""


class StepRows:
    """A queue of rows. Each row stays in the queue until the driver has written it.

    The driver asks again for the same row after a cancelled call, so no row is lost.
    """

    def __init__(self) -> None:
        self._left = deque[StepRow]()
        self._written = 0
        self._closed = False
        self._changed = asyncio.Condition()

    async def put(self, row: StepRow) -> None:
        """Add a row."""
        self._left.append(row)
        await self._notify()

    async def close(self) -> None:
        """Add no further rows, and stop all waiting for the driver."""
        self._closed = True
        await self._notify()

    async def next(self, written: int) -> StepRow | None:
        """Return the row after the first `written` rows, which the driver has written.

        Wait for this row. Return None after the last one.
        """
        while self._written < written:
            self._left.popleft()
            self._written += 1
        await self._notify()
        async with self._changed:
            await self._changed.wait_for(lambda: self._left or self._closed)
        return self._left[0] if self._left else None

    async def written(self) -> None:
        """Wait until the driver has written all present rows, or until `close`."""
        until = self._written + len(self._left)
        async with self._changed:
            await self._changed.wait_for(lambda: self._written >= until or self._closed)

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()
