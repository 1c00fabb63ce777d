"""Reads images by their hash from memory, from local disk or from the object store.

The hash of a file is verified before its image is used.
"""

import hashlib
import logging
import os
import shutil
import tempfile
import threading
from collections import OrderedDict
from pathlib import Path

from PIL.Image import Image

from awares import images
from awares.errors import DataError
from awares_platform.store import ObjectStore
from awares_platform.store.errors import NotFound

log = logging.getLogger(__name__)

KEEP_FREE_BYTES = 2 << 30
"""The disk cache stores an image only if this number of bytes stays free on the disk."""
MEMORY_BYTES = 256 << 20
"""The largest total size of decoded images in the memory cache, in bytes."""


def image_key(digest: str) -> str:
    """Return the key of an image file in the store."""
    return f"images/{digest}"


class Images:
    """A callable that maps the hash of an image to the RGB image. Callers must not modify it.

    The callable is thread-safe and picklable. A copy in another process has the same settings and
    its own memory cache. All copies on one machine share the disk cache.
    """

    def __init__(
        self,
        store: ObjectStore,
        directory: str | Path | None = None,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        self._store = store
        shared = Path(tempfile.gettempdir()) / f"awares-images-{os.getuid()}"
        self._directory = Path(directory) if directory else shared
        self._memory_bytes = memory_bytes
        self._held = 0
        self._cache: OrderedDict[str, Image] = OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type["Images"], tuple[ObjectStore, Path, int]]:
        return Images, (self._store, self._directory, self._memory_bytes)

    def __call__(self, digest: str) -> Image:
        """Return the decoded image.

        Raises DataError if the file is missing, damaged or not an image. Raises StoreError if the
        store fails.
        """
        with self._lock:
            if digest in self._cache:
                self._cache.move_to_end(digest)
                return self._cache[digest]
        image = images.decode(self.read(digest), source=image_key(digest))
        with self._lock:
            self._remember(digest, image)
        return image

    def _remember(self, digest: str, image: Image) -> None:
        """Add an image to the memory cache, and evict the least recently used images."""
        self._held += _size(image) - _size(self._cache.pop(digest, None))
        self._cache[digest] = image
        while self._held > self._memory_bytes and len(self._cache) > 1:
            self._held -= _size(self._cache.popitem(last=False)[1])

    def read(self, digest: str) -> bytes:
        """Return the verified bytes of the image file.

        Raises DataError if the file is missing or damaged. Raises StoreError if the store fails.
        """
        path = self._directory / digest[:2] / digest
        data = _cached_bytes(path, digest)
        if data is None:
            data = self._fetch(digest)
            self._admit(path, data)
        return data

    def _fetch(self, digest: str) -> bytes:
        key = image_key(digest)
        try:
            data = self._store.get(key)
        except NotFound as error:
            raise DataError(
                f"image {digest} is missing ({error}): write it with "
                "awares_platform.data.dataset.put_image"
            ) from error
        actual = hashlib.sha256(data).hexdigest()
        if actual != digest:
            raise DataError(
                f"{key} is damaged: its bytes hash to {actual}; delete it and put the image again"
            )
        return data

    def _admit(self, path: Path, data: bytes) -> None:
        """Write a file to the disk cache atomically. A failed write only costs time later."""
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if shutil.disk_usage(path.parent).free < KEEP_FREE_BYTES + len(data):
                return
            with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
                file.write(data)
            os.replace(file.name, path)
        except OSError as error:
            log.debug("image cache %s: %s", path, error)


def _cached_bytes(path: Path, digest: str) -> bytes | None:
    try:
        data = path.read_bytes()
    except OSError:
        return None
    if hashlib.sha256(data).hexdigest() == digest:
        return data
    path.unlink(missing_ok=True)
    return None


def _size(image: Image | None) -> int:
    return 3 * image.width * image.height if image else 0
