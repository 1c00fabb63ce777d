"""Collects the warnings of a process, so that the job's driver can show them.

    log.warning --> CollectedWarnings --Sign, the answer to a ping--> driver --> terminal

Without run.worker_logs, the logs of Ray's processes do not reach the terminal.
"""

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from awares_platform.runtime.logs import OURS

_MOST = 50


@dataclass(frozen=True, slots=True)
class Sign:
    """The answer of a process to a ping.

    Example:
        Sign(1, ("rollout actor 0 is gone (...)",)).tell(progress.say)
    """

    waiting: int
    """The number of processes that wait for a node. A trainer's workers count as one."""
    warnings: tuple[str, ...] = ()
    """The warnings that the process has logged since its last answer."""

    def tell(self, say: Callable[[str], None]) -> None:
        """Call `say` with each warning."""
        for line in self.warnings:
            say(line)


class CollectedWarnings(logging.Handler):
    """Keeps the newest warnings of this project that this process logs, until `take` returns them.

    Example:
        warnings = CollectedWarnings.collect()
        warnings.take()  # ("rollout actor 0 is gone (...)",)
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._lines: deque[str] = deque(maxlen=_MOST)

    @classmethod
    def collect(cls) -> Self:
        """Return a handler that collects this project's warnings from now on."""
        handler = cls()
        for name in OURS:
            logging.getLogger(name).addHandler(handler)
        return handler

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the record's message. The logging module holds the handler's lock for this call."""
        self._lines.append(record.getMessage())

    def take(self) -> tuple[str, ...]:
        """Return the warnings since the last call."""
        self.acquire()
        try:
            lines = tuple(self._lines)
            self._lines.clear()
        finally:
            self.release()
        return lines
