"""Asks Ray which nodes will soon be lost, and tells the controller.

On Kubernetes, `ray start` marks the node in Ray when its pod is deleted. Elsewhere, users run
`ray drain-node` after a cloud's notice.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection

from ray._private.state import state
from ray.exceptions import RayError

log = logging.getLogger(__name__)

_EVERY_S = 1.0
"""Seconds between two requests. A cloud gives 30 to 120 seconds of notice."""


def leaving_nodes() -> Collection[str]:
    """Return the ids of the nodes that will soon be lost."""
    return state.get_draining_nodes().keys()


async def watch_nodes(
    leave: Callable[[Collection[str]], Awaitable[None]],
    look: Callable[[], Collection[str]] = leaving_nodes,
    every_s: float = _EVERY_S,
) -> None:
    """Every `every_s` seconds, call `leave` with the nodes that will soon be lost, if any.

    The function never returns. It logs the first failure of Ray, and goes on after every failure.
    """
    failed = False
    while True:
        try:
            if nodes := await asyncio.to_thread(look):
                await leave(nodes)
        except (RayError, RuntimeError) as error:
            if not failed:
                log.warning("Ray does not say which nodes are taken back: %s", error)
            failed = True
        await asyncio.sleep(every_s)
