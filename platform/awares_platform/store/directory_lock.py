"""Finds out whether a private server runs on a directory, and who still uses the server.

    <directory>/users   each process that uses the server holds a shared lock on this file
    <directory>/lock    the server and its keeper hold an exclusive lock on this file, which
                        contains the server's process id

The keeper (seaweed_keeper.py) stops the server when it gets an exclusive lock on `users`. The
kernel releases the locks of a killed user.
"""

import contextlib
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from awares_platform.store.errors import LaunchError

GONE_S = 40.0
"""A server ends by itself within this number of seconds after its last user is gone."""
POLL_S = 0.1


@contextlib.contextmanager
def in_use(directory: Path) -> Iterator[None]:
    """Create the directory, and keep its server alive while the block runs.

    Raises LaunchError if the directory cannot be written, or if an earlier server does not stop
    within GONE_S seconds.
    """
    _create(directory)
    with (directory / "users").open("a+b") as users:
        deadline = time.monotonic() + GONE_S
        # Wait while a keeper stops its server. The keeper then holds the exclusive lock.
        while not _acquire(users, fcntl.LOCK_SH):
            if time.monotonic() > deadline:
                raise LaunchError(f"{still_used(directory)} does not end; stop that process")
            time.sleep(POLL_S)
        try:
            yield
        finally:
            _leave(directory, users)


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[IO[str] | None]:
    """Yield the locked file `lock`, or None if a server already runs on the directory.

    A child process that inherits the open file also holds the lock.
    """
    with (directory / "lock").open("a+", encoding="ascii") as lock:
        yield lock if _acquire(lock, fcntl.LOCK_EX) else None


def server_id(directory: Path) -> str:
    """Return the process id of the server on the directory, or "" while no server has started."""
    return (directory / "lock").read_text("ascii").strip()


def still_used(directory: Path) -> str:
    """Return the beginning of an error message about the server that holds the directory."""
    return f"{directory}: in use by process {server_id(directory) or 'unknown'}, which"


def _create(directory: Path) -> None:
    """Create the directory and its lock files. Raises LaunchError if this fails."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name in ("lock", "users"):
            (directory / name).touch()
    except (OSError, ValueError) as error:  # ValueError: the locale cannot encode the path.
        raise LaunchError(
            f"{directory}: cannot be written ({error}); set run.directory to a directory of yours"
        ) from error


def _leave(directory: Path, users: IO[bytes]) -> None:
    """Release the lock on `users`. If no other process uses the server, wait until it ends."""
    deadline = time.monotonic() + GONE_S
    while not _others_use(users) and time.monotonic() < deadline:
        with locked(directory) as lock:
            if lock is not None:
                return
        time.sleep(POLL_S)


def _others_use(users: IO[bytes]) -> bool:
    """Give up the caller's lock, and return whether another process uses the server."""
    # While another process uses the server, the exclusive lock is refused and a shared lock is
    # granted. While a keeper stops the server, it holds the exclusive lock, so both locks are
    # refused.
    others = not _acquire(users, fcntl.LOCK_EX) and _acquire(users, fcntl.LOCK_SH)
    fcntl.flock(users, fcntl.LOCK_UN)
    return others


def _acquire(file: IO[str] | IO[bytes], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
