"""Where a Ray that a session starts keeps its files and its Unix sockets.

<parent>/awares-ray-xxxxxxxx/session_<time>_<pid>/sockets/plasma_store
└─ TMPDIR if such a path fits into a socket's address, else /tmp or /var/tmp
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
"""The longest path of a Unix socket on Linux."""
_LONGEST = f"/{PREFIX}xxxxxxxx/session_2026-01-31_23-59-59_999999_4194304/sockets/plasma_store"
PARENT_BYTES = SOCKET_BYTES - len(_LONGEST)
"""The longest parent directory for which Ray's sockets fit."""
TEMPORARY_BYTES = 70
"""The longest TMPDIR in which vLLM and Python's multiprocessing can create their sockets."""
_SHORT = (Path("/tmp"), Path("/var/tmp"))


def python(directory: Path) -> str:
    """This Python at a path that no shell splits: Ray starts its workers by an unquoted command.

    If need be, it is a path through a link in Ray's directory to the environment of this Python.
    """
    if _is_plain(sys.executable):
        return sys.executable
    here = Path(sys.executable)
    link = directory / "python"
    link.symlink_to(here.parent.parent)
    return str(link / here.parent.name / here.name)


@contextmanager
def plain_executable(directory: Path) -> Iterator[None]:
    """Let Ray, which starts in this block, start its own processes by `python(directory)`."""
    before, sys.executable = sys.executable, python(directory)
    try:
        yield
    finally:
        sys.executable = before


def parent(others: Sequence[Path] = _SHORT) -> Path:
    """The directory in which to create Ray's. It starts nothing and creates nothing.

    Raises LaunchError if neither TMPDIR nor one of `others` is writable, short and without spaces.
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
    """Create Ray's directory in `parent`."""
    temporary = Path(tempfile.gettempdir())
    if parent != temporary:
        log.info("Ray's files are in %s, because %s does not suit its sockets", parent, temporary)
    return Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))


def variables(directory: Path) -> dict[str, str]:
    """Environment variables of the processes that use this Ray, where the usual places fail.

    TMPDIR is replaced if it is too long for sockets. A token is set if Ray cannot keep its own in
    the home directory.

    Example:
        variables(Path("/tmp/awares-ray-a1b2c3d4"))  # {} on most machines
    """
    temporary = Path(tempfile.gettempdir())
    replaced = {"TMPDIR": str(directory)} if _bytes(temporary) > TEMPORARY_BYTES else {}
    return replaced | ({} if _has_token() else {"RAY_AUTH_TOKEN": _token()})


def _has_token() -> bool:
    """Whether Ray finds a token, can save one, or needs none."""
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
    """One token for this process, because Ray reads it only once."""
    return secrets.token_hex(32)


def _is_plain(path: str) -> bool:
    """Whether a shell reads the path as one word, unquoted."""
    return shlex.quote(path) == path


def _bytes(path: Path) -> int:
    return len(os.fsencode(path))
