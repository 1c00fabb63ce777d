"""The life of the engine process ends with the process that started it."""

import multiprocessing
import os
import signal
import threading
from multiprocessing import connection


def end_with_parent() -> None:
    """In the engine process: die when the process that started the engine dies, however it dies. vLLM itself would stay."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(
            target=_wait_and_die, args=(parent.sentinel,), name="parent-watch", daemon=True
        ).start()


def _wait_and_die(sentinel: int) -> None:
    connection.wait([sentinel])
    os.kill(os.getpid(), signal.SIGKILL)
