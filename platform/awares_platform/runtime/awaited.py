"""Makes a job wait until the results of earlier jobs are in the store.

A queue such as Kueue starts jobs in any order. A job without its input reads the store again every
few seconds.
"""

import time
from collections.abc import Callable
from typing import TypeVar

from awares.errors import MissingData, MissingPolicy
from awares_platform.runtime.progress import Progress

Found = TypeVar("Found")
POLL_S = 10.0
REMIND_S = 300.0
"""After this number of seconds, a waiting job prints its message again."""


def awaited(
    job: str,
    wait_s: float,
    find: Callable[[], Found],
    poll_s: float = POLL_S,
    sleep: Callable[[float], None] = time.sleep,
) -> Found:
    """Call `find` until it succeeds, and return its result.

    `find` raises MissingPolicy or MissingData while another job can still bring the input. After
    `wait_s` seconds, this function raises the last of these errors.
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
