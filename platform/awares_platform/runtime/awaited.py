"""Lets a job wait for the results of the jobs before it, which it finds in the store.

A queue such as Kueue starts jobs in any order. A job whose input is missing then asks the store
again, and prints the reason, until the input is there or run.wait_s seconds are over.
"""

import time
from collections.abc import Callable
from typing import TypeVar

from awares.errors import MissingData, MissingPolicy
from awares_platform.runtime.progress import Progress

Found = TypeVar("Found")
POLL_S = 10.0
REMIND_S = 300.0
"""Seconds after which a job prints again for what it waits."""


def awaited(
    job: str,
    wait_s: float,
    find: Callable[[], Found],
    poll_s: float = POLL_S,
    sleep: Callable[[float], None] = time.sleep,
) -> Found:
    """Return the result of `find` as soon as it finds its input in the store.

    `find` raises MissingPolicy or MissingData while the input is missing. After `wait_s` seconds,
    this error is raised. With 0 seconds, it is raised at once. Any other error is raised at once,
    because it needs a person.
    """
    ends, reminds, told = time.monotonic() + wait_s, 0.0, ""
    while True:
        try:
            return find()
        except (MissingPolicy, MissingData) as error:
            now = time.monotonic()
            if now >= ends:
                raise
            if str(error) != told or now >= reminds:
                told, reminds = str(error), now + REMIND_S
                Progress(job).say(f"waits for at most {ends - now:,.0f} s (run.wait_s): {error}")
            sleep(min(poll_s, ends - now))
