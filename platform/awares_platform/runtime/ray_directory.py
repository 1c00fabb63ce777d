"""Where a Ray that a session starts keeps its files and its Unix sockets.

<parent>/awares-ray-xxxxxxxx/session_<time>_<pid>/sockets/plasma_store
└─ TMPDIR if such a path fits into a socket's address, else /tmp or /var/tmp
"""

import logging
import os
import tempfile
from collections.abc import Sequence
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


def parent(others: Sequence[Path] = _SHORT) -> Path:
    """The directory in which to create Ray's. It starts nothing and creates nothing.

    Raises LaunchError if neither TMPDIR nor one of `others` is short enough and writable.
    """
    temporary = Path(tempfile.gettempdir())
    for candidate in (temporary, *others):
        if _bytes(candidate) <= PARENT_BYTES and os.access(candidate, os.W_OK | os.X_OK):
            return candidate
    raise LaunchError(
        f"TMPDIR={temporary} has {_bytes(temporary)} bytes, and at most {PARENT_BYTES} leave room "
        f"for the names of Ray's sockets (Linux takes {SOCKET_BYTES} bytes); set TMPDIR to a "
        f"shorter directory: {' and '.join(map(str, others))} cannot be written here"
    )


def create(parent: Path) -> Path:
    """Create Ray's directory in `parent`."""
    temporary = Path(tempfile.gettempdir())
    if parent != temporary:
        log.info("Ray's files are in %s: its sockets do not fit into %s", parent, temporary)
    return Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))


def variables(directory: Path) -> dict[str, str]:
    """Environment variables of Ray's processes: another TMPDIR if theirs is too long for sockets.

    Example:
        variables(Path("/tmp/awares-ray-a1b2c3d4"))  # {} as long as TMPDIR is short enough
    """
    if _bytes(Path(tempfile.gettempdir())) <= TEMPORARY_BYTES:
        return {}
    return {"TMPDIR": str(directory)}


def _bytes(path: Path) -> int:
    return len(os.fsencode(path))
