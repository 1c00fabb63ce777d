"""Computes the digest of a policy from the content of its files.

The digest of a file is the blake3 hash of its content. The digest of a policy is the blake3 hash of
the names and digests of all files. It changes if a byte of a file changes, or if a file is renamed,
added or removed. The manifest of an exported policy holds the file digests. The digest of this
policy can therefore be computed without reading its weights.

Hashing gigabytes takes seconds, so the digest of each file is cached on disk. The key of a cache
entry is the file's device and inode. The entry is valid only while the file's size, mtime and ctime
(in nanoseconds) are the same.
"""

import json
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from blake3 import blake3

from awares.errors import PolicyError

MANIFEST = "manifest.json"

_SETTLED_NS = 2_000_000_000
_HEX_LENGTH = 64


def content_digest(directory: Path) -> str:
    """Return the digest of a policy directory, as 64 hex digits.

    Subdirectories are ignored. The manifest of an exported policy is also ignored, because it only
    describes the policy.
    """
    return combined(file_digests(directory))


def file_digests(directory: Path) -> dict[str, str]:
    """Return a dict from the name of each file in a policy directory to the file's digest."""
    files = sorted(path for path in directory.iterdir() if path.is_file())
    return {path.name: file_digest(path) for path in files if path.name != MANIFEST}


def combined(files: Mapping[str, str]) -> str:
    """Return the digest of a policy whose files have the digests `files`.

    Example:
        combined({"config.json": "9f2c...", "model.safetensors": "03ab..."}) == "77d1..."
    """
    return blake3(json.dumps(dict(files), sort_keys=True).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """Return the blake3 digest of a file's content, as 64 hex digits.

    The digest of an unchanged file comes from the cache. Any number of processes may share the
    cache, because each cache entry is replaced atomically.
    """
    stamp = _stamp(path)
    entry = cache_directory() / "digests" / f"{stamp['device']}-{stamp['inode']}.json"
    cached = _cached(entry, stamp)
    if cached is not None:
        return cached
    # Two writes within one tick of the clock leave the same mtime. The digest of a file is
    # therefore not cached until the file is a few seconds old.
    settled = time.time_ns() - max(stamp["mtime_ns"], stamp["ctime_ns"]) > _SETTLED_NS
    digest = blake3(max_threads=blake3.AUTO).update_mmap(path).hexdigest()
    if settled and _stamp(path) == stamp:
        _remember(entry, stamp, digest)
    return digest


def cache_directory() -> Path:
    """Return the directory in which this machine keeps downloaded policies and file digests.

    The environment variable AWARES_CACHE overrides the default ~/.cache/awares. If the default
    cannot be written, use a temporary directory.
    """
    if chosen := os.environ.get("AWARES_CACHE"):
        return Path(chosen)
    # Unlike Path.home, expanduser raises no error for a user without a home directory.
    usual = Path(os.path.expanduser("~"), ".cache", "awares")
    return usual if _can_be_written(usual) else _temporary()


def _can_be_written(directory: Path) -> bool:
    """Create the directory if it is missing. Return whether it exists and can be written."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(directory, os.W_OK | os.X_OK)


def _temporary() -> Path:
    """Create a cache in the temporary directory, and return its path.

    Raises PolicyError if the path is a symbolic link, belongs to another user, or can be written by
    other users.
    """
    directory = Path(tempfile.gettempdir(), f"awares-cache-{os.getuid()}")
    directory.mkdir(mode=0o700, exist_ok=True)
    status = directory.lstat()
    if status.st_uid != os.getuid() or status.st_mode & 0o022 or directory.is_symlink():
        raise PolicyError(
            f"the home directory cannot be written, and {directory} can be written by others: "
            "set AWARES_CACHE to a directory of yours"
        )
    return directory


def _stamp(path: Path) -> dict[str, int]:
    """Return metadata that changes whenever the file's content changes.

    The exception is a second write within the same tick of the clock.
    """
    status = path.stat()
    return {
        "device": status.st_dev,
        "inode": status.st_ino,
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "ctime_ns": status.st_ctime_ns,
    }


def _cached(entry: Path, stamp: Mapping[str, int]) -> str | None:
    """Return the digest in a cache entry.

    The result is None if the entry is absent or unreadable, or if its stamp is not `stamp`.
    """
    try:
        found = json.loads(entry.read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(found, dict) or found.get("stamp") != stamp:
        return None
    digest = found.get("digest")
    return digest if isinstance(digest, str) and len(digest) == _HEX_LENGTH else None


def _remember(entry: Path, stamp: Mapping[str, int], digest: str) -> None:
    """Write a cache entry. An OSError is ignored, because a missing entry only costs time."""
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        handle, staged = tempfile.mkstemp(dir=entry.parent)
        with os.fdopen(handle, "w") as file:
            json.dump({"stamp": dict(stamp), "digest": digest}, file)
        os.replace(staged, entry)
    except OSError:
        return
