"""Keeps one engine at the newest version that the learner publishes.

HEAD is the object in the store that names the newest version.

follow -- read HEAD -- new? --> Engine.load_version --> Loaded
                                  |  (prefetch while generating, pause, apply, resume, canary)
                                  +-- version or store unavailable --> Missed; retry more slowly
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass

from awares_platform.config.method import MethodConfig
from awares_platform.engine.canary import Canary, CanaryMismatch
from awares_platform.engine.engine import Engine
from awares_platform.engine.load import LoadReport
from awares_platform.store.errors import StoreError
from awares_platform.training.inputs import check_published
from awares_platform.weights import Subscriber, WeightsError

_SLOWEST_POLL_S = 15.0


@dataclass(frozen=True, slots=True)
class Loaded:
    """A completed load: the engine now generates with `version`.

    Example:
        report = LoadReport(4, Prefetched(...), apply_s=0.02, pause_s=0.03, canary_dlogp=0.0012)
        Loaded(report, load_s=0.21)
    """

    report: LoadReport
    load_s: float
    """The duration of the load in seconds, without the read of HEAD."""

    @property
    def version(self) -> int:
        """The version that the engine generates with."""
        return self.report.version


@dataclass(frozen=True, slots=True)
class Missed:
    """A failed attempt to read HEAD, or to load its newest version. `follow` tries again.

    Example:
        Missed(version=5, reason="run mini: ... does not have the hash that its manifest names")
    """

    version: int | None
    """The newest version in the HEAD that was last read, or None before the first publication."""
    reason: str
    """The message of the error."""


async def follow(
    engine: Engine,
    subscriber: Subscriber,
    canary: Canary | None,
    poll_s: float,
    announced: asyncio.Event | None = None,
    method: MethodConfig | None = None,
    loading: asyncio.Lock | None = None,
) -> AsyncIterator[Loaded | Missed]:
    """Load the newest version whenever HEAD names a new one, and skip the versions in between.

    - `poll_s` is the time between two reads of HEAD, in seconds.
    - `announced` starts the next read early.
    - `loading` is a lock that other tasks hold while nothing may be loaded.

    Raises CanaryMismatch if the engine's logprobs differ too much from the learner's, EngineError
    if the engine must be restarted, and PolicyError if the learner has another `method`.
    """
    announced, loading = announced or asyncio.Event(), loading or asyncio.Lock()
    failures = 0
    while True:
        try:
            async with loading:
                load = await load_newest(engine, subscriber, canary, method)
            if load is not None:
                failures = 0
                yield load
        except CanaryMismatch:
            raise
        except (WeightsError, StoreError) as error:
            failures += 1
            yield Missed(subscriber.seen.version, str(error))
        with suppress(TimeoutError):
            async with asyncio.timeout(min(_SLOWEST_POLL_S, poll_s * 2**failures)):
                await announced.wait()
        # Clear the event before the next read of HEAD. An announcement during the read then counts.
        announced.clear()


async def load_newest(
    engine: Engine,
    subscriber: Subscriber,
    canary: Canary | None,
    method: MethodConfig | None = None,
) -> Loaded | None:
    """Load HEAD's newest version into the engine.

    Return None if HEAD names no version or the engine already has the newest version. Raises the
    same errors as Engine.load_version. Raises PolicyError in the same case as `follow`.
    """
    head = await asyncio.to_thread(subscriber.head)
    if head is None or head == engine.version:
        return None
    started = time.perf_counter()
    if method is not None:
        check_published(await asyncio.to_thread(subscriber.manifest, head), subscriber.run, method)
    report = await engine.load_version(subscriber, head, canary)
    return Loaded(report, time.perf_counter() - started)
