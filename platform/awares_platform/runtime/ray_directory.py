"""Chooses the directory for the files and Unix sockets of a Ray that a session starts.

<parent>/awares-ray-xxxxxxxx/session_<time>_<pid>/sockets/plasma_store
+- TMPDIR if such a path fits into a socket's address, else /tmp or /var/tmp
"""

import logging
import os
import secrets
import shlex
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from awares_platform.store.errors import LaunchError

log = logging.getLogger(__name__)

PREFIX = "awares-ray-"
SOCKET_BYTES = 107
"""The largest number of bytes in the path of a Unix socket on Linux."""
_LONGEST = f"/{PREFIX}xxxxxxxx/session_2026-01-31_23-59-59_999999_4194304/sockets/plasma_store"
PARENT_BYTES = SOCKET_BYTES - len(_LONGEST)
"""The largest number of bytes in the path of the directory in which Ray's directory is created.
"""
TEMPORARY_BYTES = 70
"""vLLM and multiprocessing cannot create sockets if TMPDIR has more than this number of bytes."""
_SHORT = (Path("/tmp"), Path("/var/tmp"))


def python(directory: Path) -> str:
    """Return a path of this Python that a shell reads as one word without quotes.

    Ray starts its workers with an unquoted shell command. If sys.executable needs quotes, the
    function creates a symlink in `directory` to this Python's environment. It then returns the path
    of this Python below the symlink.
    """
    if _is_plain(sys.executable):
        return sys.executable
    here = Path(sys.executable)
    link = directory / "python"
    link.symlink_to(here.parent.parent)
    return str(link / here.parent.name / here.name)


@contextmanager
def plain_executable(directory: Path) -> Iterator[None]:
    """Set sys.executable to `python(directory)` within the block. Start Ray within the block."""
    before, sys.executable = sys.executable, python(directory)
    try:
        yield
    finally:
        sys.executable = before


def parent(others: Sequence[Path] = _SHORT) -> Path:
    """Return the directory in which to create Ray's directory, without creating anything.

    The candidates are TMPDIR and `others`. Raises LaunchError if no candidate is writable, short
    and without spaces.
    """
    temporary = Path(tempfile.gettempdir())
    for candidate in (temporary, *others):
        fits = _bytes(candidate) <= PARENT_BYTES and _is_plain(str(candidate))
        if fits and os.access(candidate, os.W_OK | os.X_OK):
            return candidate
    raise LaunchError(
        f"TMPDIR={temporary} has {_bytes(temporary)} bytes, and at most {PARENT_BYTES} leave room "
        f"for the names of Ray's sockets (Linux takes {SOCKET_BYTES} bytes); set TMPDIR to a "
        "shorter directory without spaces: "
        f"{' and '.join(map(str, others))} cannot be written here"
    )


def create(parent: Path) -> Path:
    """Create Ray's directory in `parent`, and return its path."""
    temporary = Path(tempfile.gettempdir())
    if parent != temporary:
        log.info("Ray's files are in %s, because %s does not suit its sockets", parent, temporary)
    return Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))


def variables(directory: Path) -> dict[str, str]:
    """Return environment variables for Ray's processes where the defaults would fail.

    TMPDIR is replaced if it is too long for sockets. A token is set if Ray cannot keep its own
    token in the home directory.

    Example:
        variables(Path("/tmp/awares-ray-a1b2c3d4"))  # {} on most machines
    """
    temporary = Path(tempfile.gettempdir())
    replaced = {"TMPDIR": str(directory)} if _bytes(temporary) > TEMPORARY_BYTES else {}
    return replaced | ({} if _has_token() else {"RAY_AUTH_TOKEN": _token()})


def _has_token() -> bool:
    """Return whether Ray finds a token, can save a new token, or needs no token."""
    if os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"):
        return True
    home = Path(os.path.expanduser("~"), ".ray")
    if os.environ.get("RAY_AUTH_MODE") == "disabled" or os.access(home / "auth_token", os.R_OK):
        return True
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(home, os.W_OK | os.X_OK)


@cache
def _token() -> str:
    """Return a random token. Every call returns the same token, because Ray reads it only once."""
    return secrets.token_hex(32)


def _is_plain(path: str) -> bool:
    """Return whether a shell reads the unquoted path as one word."""
    return shlex.quote(path) == path


def _bytes(path: Path) -> int:
    return len(os.fsencode(path))
