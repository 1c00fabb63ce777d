"""Tests that the image cache verifies hashes, limits its memory use, and can be pickled."""

import hashlib
import io
import pickle
from pathlib import Path
from typing import cast

import pytest
from PIL import Image

from awares.errors import DataError
from awares_platform.data.images import Images, image_key
from awares_platform.store import ObjectStore
from awares_platform.store.errors import NotFound


class MemoryStore:
    """A fake store in memory that counts the calls of `get`."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.reads = 0

    def get(self, key: str) -> bytes:
        self.reads += 1
        if key not in self.objects:
            raise NotFound(key)
        return self.objects[key]


def png(color: tuple[int, int, int], size: tuple[int, int] = (8, 8)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, "PNG")
    return buffer.getvalue()


def put(store: MemoryStore, data: bytes) -> str:
    digest = hashlib.sha256(data).hexdigest()
    store.objects[image_key(digest)] = data
    return digest


def test_memory_then_disk_then_store(tmp_path: Path) -> None:
    store = MemoryStore()
    digest = put(store, png((250, 0, 0)))
    images = Images(cast(ObjectStore, store), tmp_path)
    assert images(digest).getpixel((0, 0)) == (250, 0, 0) and images(digest).mode == "RGB"
    assert store.reads == 1
    assert Images(cast(ObjectStore, store), tmp_path)(digest).size == (8, 8)
    assert store.reads == 1


def test_damaged_disk_cache_is_fetched_again(tmp_path: Path) -> None:
    store = MemoryStore()
    digest = put(store, png((0, 250, 0)))
    Images(cast(ObjectStore, store), tmp_path)(digest)
    cached = tmp_path / digest[:2] / digest
    cached.write_bytes(b"rubbish")
    assert Images(cast(ObjectStore, store), tmp_path)(digest).getpixel((0, 0)) == (0, 250, 0)
    assert store.reads == 2 and hashlib.sha256(cached.read_bytes()).hexdigest() == digest


def test_wrong_bytes_missing_bytes_and_no_image_are_named(tmp_path: Path) -> None:
    store = MemoryStore()
    images = Images(cast(ObjectStore, store), tmp_path)
    damaged = put(store, png((1, 2, 3)))
    store.objects[image_key(damaged)] = png((3, 2, 1))
    with pytest.raises(DataError, match=f"images/{damaged} is damaged"):
        images(damaged)
    with pytest.raises(DataError, match="is missing"):
        images("f" * 64)
    rubbish = put(store, b"GIF89a but not really")
    with pytest.raises(DataError, match=f"images/{rubbish}"):
        images(rubbish)


def test_memory_holds_the_most_recent(tmp_path: Path) -> None:
    store = MemoryStore()
    first, second, third = (put(store, png((i, i, i))) for i in range(3))
    images = Images(cast(ObjectStore, store), tmp_path, memory_bytes=2 * 3 * 64)
    kept = images(first)
    images(second)
    assert images(first) is kept
    images(third)
    assert images(first) is kept and list(images._cache) == [third, first]


def test_pickling_takes_settings_and_no_pixels(tmp_path: Path) -> None:
    store = MemoryStore()
    digest = put(store, png((9, 9, 9), (64, 64)))
    images = Images(cast(ObjectStore, store), tmp_path)
    images(digest)
    copy = pickle.loads(pickle.dumps(images))
    assert not copy._cache and copy(digest).size == (64, 64)
