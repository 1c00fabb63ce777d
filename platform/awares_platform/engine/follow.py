"""Following a run: one engine that always has the newest version that the learner published.

follow ──poll── HEAD ── new? ── Engine.load_version (prefetch while generating, pause, apply, resume, canary) ──> Loaded
                                      └── cannot be fetched, or the store is away ──> Missed, tried again ever more slowly
"""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from awares_platform.engine.canary import Canary, CanaryMismatch
from awares_platform.engine.engine import Engine
from awares_platform.engine.load import LoadReport
from awares_platform.errors import StoreError
from awares_platform.weights import Subscriber, WeightsError

_SLOWEST_POLL_S = 15.0


@dataclass(frozen=True, slots=True)
class Loaded:
    """The engine now generates with `version`, after `load_s` seconds from the moment that HEAD was seen; what they went into is in the
    report.

    Example:
        Loaded(LoadReport(4, Prefetched(...), apply_s=0.02, pause_s=0.03, canary_dlogp=0.0012), load_s=0.21)
    """

    report: LoadReport
    load_s: float

    @property
    def version(self) -> int:
        """What it generates with."""
        return self.report.version


@dataclass(frozen=True, slots=True)
class Missed:
    """The engine could not load what HEAD names, goes on with what it has, and will try again.

    Example:
        Missed(version=5, reason="run mini: ... does not hash to what its manifest names")
    """

    version: int | None
    reason: str


async def follow(
    engine: Engine, subscriber: Subscriber, canary: Canary | None, poll_s: float
) -> AsyncIterator[Loaded | Missed]:
    """Loads every new HEAD it sees, skipping what lies between. What cannot be fetched is missed and tried again.

    Raises CanaryMismatch, and EngineError when the engine must be restarted.
    """
    failures = 0
    while True:
        try:
            if (load := await load_newest(engine, subscriber, canary)) is not None:
                failures = 0
                yield load
        except CanaryMismatch:
            raise
        except (WeightsError, StoreError) as error:
            failures += 1
            yield Missed(subscriber.seen.version, str(error))
        await asyncio.sleep(min(_SLOWEST_POLL_S, poll_s * 2**failures))


async def load_newest(
    engine: Engine, subscriber: Subscriber, canary: Canary | None
) -> Loaded | None:
    """Loads HEAD, if it is not what the engine has. Raises as Engine.load_version."""
    head = await asyncio.to_thread(subscriber.head)
    if head is None or head == engine.version:
        return None
    started = time.perf_counter()
    report = await engine.load_version(subscriber, head, canary)
    return Loaded(report, time.perf_counter() - started)
