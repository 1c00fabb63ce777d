"""Reads images by their hash from memory, from local disk or from the object store.

    hash --+-- in a pack index of the data set: read the pack (packs.py)
           +-- else: read the object images/<hash>

The hash of an image file is verified before the image is decoded.
"""

import os
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL.Image import Image

from awares import images
from awares.errors import DataError
from awares_platform.data.image_object import image_key
from awares_platform.data.manifest import pack_indexes
from awares_platform.data.object_cache import ObjectCache
from awares_platform.data.packs import PackPlace, decode_index
from awares_platform.store import ObjectStore
from awares_platform.store.errors import NotFound

if TYPE_CHECKING:
    from awares_platform.config.data import DataConfig

MEMORY_BYTES = 256 << 20
"""Maximum total size of the decoded images in the memory cache, in bytes."""
_WRITE_IMAGE = "delete it and put the image again"
_WRITE_SPLIT = "delete the manifest.json of the split and write the split again"


class Images:
    """A callable that maps the hash of an image to the RGB image. It is thread-safe and picklable.

    Callers must not modify the image, because it is cached. `splits` holds pairs (data set, split).
    The packs of these splits are searched before the separate image objects.

    Example:
        images = Images.of(store, config.data)
        images(sample.image).size
    """

    def __init__(
        self,
        store: ObjectStore,
        directory: str | Path | None = None,
        memory_bytes: int = MEMORY_BYTES,
        splits: Sequence[tuple[str, str]] = (),
    ) -> None:
        self._store = store
        shared = Path(tempfile.gettempdir()) / f"awares-images-{os.getuid()}"
        self._directory = Path(directory) if directory else shared
        self._memory_bytes = memory_bytes
        self._splits = tuple(splits)
        self._objects = ObjectCache(store, self._directory)
        self._held = 0
        self._cache: OrderedDict[str, Image] = OrderedDict()
        self._lock = threading.Lock()
        self._places: dict[str, PackPlace] | None = None
        self._index_lock = threading.Lock()

    @classmethod
    def of(
        cls, store: ObjectStore, data: "DataConfig", further: Sequence[tuple[str, str]] = ()
    ) -> "Images":
        """Return an Images for the splits "train" and "test" of a data set, and its curated split.

        `further` holds more pairs (data set, split). A missing split is no error.
        """
        splits = [(data.name, "train"), (data.name, "test"), (data.curated, "train"), *further]
        return cls(store, data.image_cache, splits=splits)

    def __reduce__(self) -> tuple[type["Images"], tuple[object, ...]]:
        return Images, (self._store, self._directory, self._memory_bytes, self._splits)

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
        place = self._indexed().get(digest)
        try:
            if place is None:
                return self._objects.read(image_key(digest), digest, remedy=_WRITE_IMAGE)
            return self._objects.read(
                place.pack, digest, remedy=_WRITE_SPLIT, offset=place.offset, length=place.length
            )
        except NotFound as error:
            write = "write it with awares_platform.data.dataset.put_image"
            raise DataError(
                f"image {digest} is missing ({error}): {_WRITE_SPLIT if place else write}"
            ) from error

    def head(self, digest: str, length: int) -> bytes:
        """Return the first `length` bytes of the image file, without verifying its hash.

        The result is shorter if the file is shorter. Raises NotFound if the file is missing, and
        StoreError if the store fails.
        """
        place = self._indexed().get(digest)
        if place is None:
            return self._store.get_range(image_key(digest), 0, length)
        end = place.offset + min(length, place.length)
        return self._store.get_range(place.pack, place.offset, end)

    def _indexed(self) -> dict[str, PackPlace]:
        """Return the place of each packed image by hash. The first call reads the pack indexes."""
        with self._index_lock:
            if self._places is None:
                places: dict[str, PackPlace] = {}
                for key in pack_indexes(self._store, self._splits):
                    places |= self._read_index(key)
                self._places = places
            return self._places

    def _read_index(self, key: str) -> dict[str, PackPlace]:
        try:
            digest = key.rpartition("/")[2]
            return decode_index(self._objects.read(key, digest, remedy=_WRITE_SPLIT))
        except NotFound as error:
            raise DataError(f"{key} is missing ({error}): {_WRITE_SPLIT}") from error


def _size(image: Image | None) -> int:
    return 3 * image.width * image.height if image else 0
