"""Chooses the directory for the files and Unix sockets of the Ray that a session starts.

Linux limits the length of a socket's path. The longest path is:

    <parent>/awares-ray-xxxxxxxx/session_<time>_<pid>/sockets/plasma_store

<parent> is TMPDIR if its path is short, needs no quotes in a shell, and can be written. Otherwise
<parent> is /tmp or /var/tmp.
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
"""The largest number of bytes in the path of <parent>, so that the paths of Ray's sockets fit."""
TEMPORARY_BYTES = 70
"""vLLM and multiprocessing cannot create sockets if the path in TMPDIR has more bytes than this."""
_SHORT = (Path("/tmp"), Path("/var/tmp"))


def python(directory: Path) -> str:
    """Return a path of the running Python that needs no quotes in a shell.

    Ray starts its workers with an unquoted shell command. A path with spaces is replaced by a
    symlink in `directory`.
    """
    if _is_plain(sys.executable):
        return sys.executable
    here = Path(sys.executable)
    link = directory / "python"
    link.symlink_to(here.parent.parent)
    return str(link / here.parent.name / here.name)


@contextmanager
def plain_executable(directory: Path) -> Iterator[None]:
    """Set sys.executable to `python(directory)` within the block.

    The caller must start Ray within the block, because Ray starts its workers with sys.executable.
    """
    before, sys.executable = sys.executable, python(directory)
    try:
        yield
    finally:
        sys.executable = before


def parent(others: Sequence[Path] = _SHORT) -> Path:
    """Return the directory in which the caller can create Ray's directory.

    The result is TMPDIR or one of `others`. Raises LaunchError if none is writable with a short
    path that needs no quotes.
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
    """Return the environment variables that this session must set for Ray's processes.

    The result has TMPDIR if its path is too long, and RAY_AUTH_TOKEN if Ray cannot get a token.

    Example:
        variables(Path("/tmp/awares-ray-a1b2c3d4"))  # {} on most machines
    """
    temporary = Path(tempfile.gettempdir())
    replaced = {"TMPDIR": str(directory)} if _bytes(temporary) > TEMPORARY_BYTES else {}
    return replaced | ({} if _has_token() else {"RAY_AUTH_TOKEN": _token()})


def _has_token() -> bool:
    """Return whether Ray finds an authentication token, can save a new one, or needs none."""
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
    """Return a random token. Every call in this process returns the same token.

    Ray reads the token only once, so a later token would not match.
    """
    return secrets.token_hex(32)


def _is_plain(path: str) -> bool:
    """Return whether a shell reads the unquoted path as one word."""
    return shlex.quote(path) == path


def _bytes(path: Path) -> int:
    return len(os.fsencode(path))
