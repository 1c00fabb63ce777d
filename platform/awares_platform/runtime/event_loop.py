"""Runs a coroutine whose tasks take seconds to stop, even if further signals arrive meanwhile.

asyncio.run would abandon the tasks after a second signal. Abandoned tasks call ray.kill after Ray
has stopped, which starts a new Ray.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` in a new event loop, as asyncio.run does, and return its result.

    After a signal, the function cancels all tasks, waits for them, and raises the handler's error.
    Each further signal cancels the tasks again.
    """
    with asyncio.Runner() as runner:
        try:
            return runner.run(work)
        except (KeyboardInterrupt, SystemExit):
            _cancel_all(runner.get_loop())
            raise


def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    while tasks := asyncio.all_tasks(loop):
        for task in tasks:
            task.cancel()
        try:
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        except (KeyboardInterrupt, SystemExit):
            continue
