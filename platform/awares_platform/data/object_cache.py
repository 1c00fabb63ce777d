"""Keeps local copies of objects that never change, because their keys end in a content hash."""

import hashlib
import logging
import os
import shutil
import tempfile
import threading
from pathlib import Path

from awares.errors import DataError
from awares_platform.store import ObjectStore

log = logging.getLogger(__name__)

KEEP_FREE_BYTES = 2 << 30
"""The cache stores an object only if this number of bytes stays free on the disk."""
_LOCKS = 16


class ObjectCache:
    """Reads objects from a local directory, or else from the store, and always verifies the hash.

    The cache is thread-safe. All processes of a machine share the directory.

    Example:
        cache = ObjectCache(store, Path("/tmp/awares-images-1000"))
        cache.read("images/9f2c...", "9f2c...", remedy="put the image again")
    """

    def __init__(self, store: ObjectStore, directory: Path) -> None:
        self._store = store
        self._directory = directory
        self._locks = [threading.Lock() for _ in range(_LOCKS)]

    def read(
        self, key: str, digest: str, *, remedy: str, offset: int = 0, length: int = -1
    ) -> bytes:
        """Return the whole object, or only its `length` bytes from `offset` on.

        Raises DataError, whose message ends with `remedy`, if the SHA-256 of the bytes is not
        `digest`. Raises NotFound if the object is missing.
        """
        data = self._local(key, digest, offset, length)
        if data is None:
            with self._locks[hash(key) % _LOCKS]:
                # Another thread may have fetched the object meanwhile.
                data = self._local(key, digest, offset, length)
                if data is None:
                    data = self._fetch(key, offset, length)
        if (actual := hashlib.sha256(data).hexdigest()) != digest:
            what = key if length < 0 else f"image {digest} in {key}"
            raise DataError(f"{what} is damaged: its bytes hash to {actual}; {remedy}")
        return data

    def _local(self, key: str, digest: str, offset: int, length: int) -> bytes | None:
        """Return the bytes from the local copy, or None if the copy is missing or damaged."""
        try:
            with self._path(key).open("rb") as file:
                file.seek(offset)
                data = file.read(length)
        except OSError:
            return None
        return data if hashlib.sha256(data).hexdigest() == digest else None

    def _fetch(self, key: str, offset: int, length: int) -> bytes:
        """Return the bytes from the store, and keep a local copy of the whole object.

        If the disk is too full for a copy, fetch only the requested bytes.
        """
        if length >= 0 and not self._has_room(key, 0):
            return self._store.get_range(key, offset, offset + length)
        data = self._store.get(key)
        self._admit(key, data)
        return data if length < 0 else data[offset : offset + length]

    def _has_room(self, key: str, size: int) -> bool:
        directory = self._path(key).parent
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            return shutil.disk_usage(directory).free >= KEEP_FREE_BYTES + size
        except OSError as error:
            log.debug("object cache %s: %s", directory, error)
            return False

    def _admit(self, key: str, data: bytes) -> None:
        """Write a local copy atomically.

        Ignore a failed write, because the next read then fetches the object again.
        """
        if not self._has_room(key, len(data)):
            return
        path = self._path(key)
        try:
            with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
                file.write(data)
            os.replace(file.name, path)
        except OSError as error:
            log.debug("object cache %s: %s", path, error)

    def _path(self, key: str) -> Path:
        name = key.rpartition("/")[2]
        return self._directory / name[:2] / name
