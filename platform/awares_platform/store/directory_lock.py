"""Locks a private server's directory. Only one run at a time may use the directory.

The server process inherits the lock. If a run is killed, the next run therefore waits until the old
server has ended.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from awares_platform.store.errors import LaunchError

_GONE_S = 40.0
"""A server ends by itself within this number of seconds after its run is killed."""


def _create(directory: Path) -> None:
    """Create the directory. Raises LaunchError if it cannot be written."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "lock").touch()
    except (OSError, ValueError) as error:  # ValueError: the locale cannot encode the path.
        raise LaunchError(
            f"{directory}: cannot be written ({error}); set run.directory to a directory of yours"
        ) from error


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[IO[str]]:
    """Create and lock the directory, and yield the lock file.

    A child process that inherits the open file also holds the lock. Raises LaunchError if the
    directory cannot be written, or if another run has locked the directory.
    """
    _create(directory)
    with (directory / "lock").open("a+", encoding="ascii") as lock:
        deadline = time.monotonic() + _GONE_S
        while not _acquire(lock):
            lock.seek(0)
            owner = lock.read().strip()
            if _alive(owner) or time.monotonic() > deadline:
                raise LaunchError(
                    f"{directory}: in use by process {owner}; wait for that run, or give this one "
                    "another run.directory"
                )
            time.sleep(0.2)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield lock


def _acquire(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _alive(pid: str) -> bool:
    return pid.isdigit() and Path(f"/proc/{pid}").exists()
