"""Ends each process of an engine when the process that started it dies."""

import multiprocessing
import os
import signal
import threading
from multiprocessing import connection


def end_with_parent() -> None:
    """Start a thread that kills this process as soon as its parent dies.

    Every process of an engine calls this function, so that no process outlives its parent.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(
            target=_wait_and_die, args=(parent.sentinel,), name="parent-watch", daemon=True
        ).start()


def _wait_and_die(sentinel: int) -> None:
    connection.wait([sentinel])
    os.kill(os.getpid(), signal.SIGKILL)
