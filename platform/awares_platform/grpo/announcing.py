"""Watches for new weights on behalf of all rollout actors, and tells them.

HEAD is the object in the store that names the newest weights. Only this module reads HEAD often, so
1,000 actors cause few requests.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from awares_platform.grpo.actor import Actor
from awares_platform.store.errors import StoreError
from awares_platform.weights import Subscriber, WeightsError

_SLOWEST_POLL_S = 15.0
_AT_ONCE = 32

SELDOM = 60
"""An actor that gets no announcement reads HEAD every min(SELDOM * grpo.poll_s, 15) seconds."""


async def tell(actors: Iterable[Actor]) -> None:
    """Tell the actors that the store has new weights. After every 32 calls, let other tasks run."""
    for count, actor in enumerate(tuple(actors), 1):
        actor.announce()
        if count % _AT_ONCE == 0:
            await asyncio.sleep(0)


async def announce_versions(
    subscriber: Subscriber, announce: Callable[[int | None], Awaitable[None]], poll_s: float
) -> None:
    """Read HEAD every `poll_s` seconds, and call `announce` after each change. Never return.

    `announce` gets the newest version, or None. Each failure in a row doubles the wait, up to 15 s.
    """
    failures, seen = 0, subscriber.seen
    while True:
        try:
            await asyncio.to_thread(subscriber.head)
        except (WeightsError, StoreError):
            failures += 1
        else:
            failures = 0
        if subscriber.seen != seen:
            seen = subscriber.seen
            await announce(seen.version)
        await asyncio.sleep(min(_SLOWEST_POLL_S, poll_s * 2**failures))
