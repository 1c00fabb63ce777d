"""Hands values to one tracker in a thread, so that a tracker never stops a run or delays a step."""

import logging
import queue
import threading
import time
from collections.abc import Callable

from awares_platform.runtime.tracking.tracker import Tracker

log = logging.getLogger(__name__)
WAITING = 1000
"""The largest number of calls that wait for a slow tracker. Further calls are dropped."""
CLOSE_S = 30.0
"""The longest time in seconds that `Courier.close` takes."""


class Courier:
    """Runs calls on a tracker, in order, in a daemon thread.

    Errors of calls do not stop the thread; only the first error is logged.

    Example:
        courier = Courier("MLflow", tracker)
        courier.send(lambda tracker: tracker.metrics(3, {"reward/mean": 8.4}))
        courier.close()
    """

    def __init__(
        self, name: str, tracker: Tracker, waiting: int = WAITING, close_s: float = CLOSE_S
    ) -> None:
        self._name, self._tracker, self._close_s = name, tracker, close_s
        self._calls: queue.Queue[Callable[[Tracker], None] | None] = queue.Queue(waiting)
        self._reported = False
        self._thread = threading.Thread(target=self._run, name=f"tracker {name}", daemon=True)
        self._thread.start()

    def send(self, call: Callable[[Tracker], None]) -> None:
        """Let the thread run `call`, and do not wait for it."""
        try:
            self._calls.put_nowait(call)
        except queue.Full:
            self._report("it is too slow")

    def close(self) -> None:
        """Let the thread finish its calls and close the tracker.

        If this takes longer than the constructor's `close_s`, log a warning and return.
        """
        deadline = time.monotonic() + self._close_s
        try:
            self._calls.put(None, timeout=self._close_s)
            self._thread.join(max(0.0, deadline - time.monotonic()))
        except queue.Full:
            pass  # The thread hangs in a call.
        if self._thread.is_alive():
            log.warning("%s did not finish within %g s; it is given up", self._name, self._close_s)

    def _run(self) -> None:
        started = self._try(lambda tracker: tracker.start())
        while (call := self._calls.get()) is not None:
            started = started or self._try(lambda tracker: tracker.start())
            if started:
                self._try(call)
        if started:
            self._try(lambda tracker: tracker.close())

    def _try(self, call: Callable[[Tracker], None]) -> bool:
        try:
            call(self._tracker)
        # Trackers raise many types of exceptions, and none of them may stop a run.
        except Exception as error:
            self._report(f"{type(error).__name__}: {error}")
            return False
        return True

    def _report(self, reason: str) -> None:
        if not self._reported:
            self._reported = True
            message = "%s lacks values (%s); the run goes on, and metrics.jsonl has them all"
            log.warning(message, self._name, reason)
