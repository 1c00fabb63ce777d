"""Keeps an engine at the newest weight version in the background, while other tasks generate.

Requests wait only during the short pause in which the engine swaps the weights.
"""

import asyncio
import contextlib
import logging
from typing import Self

from awares_platform.config.method import MethodConfig
from awares_platform.engine.canary import Canary, CanaryMismatch
from awares_platform.engine.engine import Engine
from awares_platform.engine.follow import Missed, follow, load_newest
from awares_platform.store import ObjectStore
from awares_platform.store.errors import StoreError
from awares_platform.weights import Subscriber, WeightsError

log = logging.getLogger(__name__)
POLL_S = 2.0


class Following:
    """Keeps one engine at the newest published version, with a background task."""

    def __init__(
        self, engine: Engine, subscriber: Subscriber, canary: Canary, method: MethodConfig
    ) -> None:
        self._engine, self._subscriber, self._canary = engine, subscriber, canary
        self._method = method
        self._task: asyncio.Task[None] | None = None

    @classmethod
    async def begin(
        cls,
        engine: Engine,
        store: ObjectStore,
        run: str,
        canary: Canary,
        method: MethodConfig,
        threads: int,
    ) -> Self:
        """Load the newest version of `run`, then start the task that loads later versions.

        The engine keeps its present version if the newest version is unavailable. Raises
        CanaryMismatch, EngineError and PolicyError in the same cases as `follow`.
        """
        following = cls(engine, Subscriber(store, run, threads=threads), canary, method)
        await following._start()
        return following

    async def _start(self) -> None:
        try:
            await load_newest(self._engine, self._subscriber, self._canary, self._method)
        except CanaryMismatch:
            raise
        except (WeightsError, StoreError) as error:
            log.warning("starting with version %d: %s", self._engine.version, error)
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        loads = follow(self._engine, self._subscriber, self._canary, POLL_S, method=self._method)
        async for load in loads:
            if isinstance(load, Missed):
                log.warning("going on with version %d: %s", self._engine.version, load.reason)
            else:
                log.info(
                    "serving version %d after a pause of %.0f ms",
                    load.version,
                    1000 * load.report.pause_s,
                )

    def check(self) -> None:
        """Raise the error that ended the background task, if an error ended it.

        After such an error the engine is unusable.
        """
        if self._task is not None and self._task.done():
            self._task.result()

    async def stop(self) -> None:
        """Stop the background task."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError, WeightsError):
                await self._task
