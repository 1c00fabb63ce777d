"""The end of the engine process together with the process that started it."""

import multiprocessing
import os
import signal
import threading
from multiprocessing import connection


def end_with_parent() -> None:
    """Kill this process as soon as its parent dies, for any reason.

    Call this in the engine process, which would otherwise outlive its parent.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(
            target=_wait_and_die, args=(parent.sentinel,), name="parent-watch", daemon=True
        ).start()


def _wait_and_die(sentinel: int) -> None:
    connection.wait([sentinel])
    os.kill(os.getpid(), signal.SIGKILL)
