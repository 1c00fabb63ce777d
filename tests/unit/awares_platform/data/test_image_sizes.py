"""Tests that sizes of images are read from the first bytes of their files."""

import hashlib
import io
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import pytest
from PIL import ExifTags, Image

from awares.images import decode
from awares_platform.data.image_sizes import read_sizes, sample_sizes
from awares_platform.data.images import Images, image_key
from awares_platform.store import ObjectStore
from awares_platform.store.errors import NotFound, StoreUnavailable
from tests.unit.awares_platform.data import test_packs as packed


class MemoryStore:
    """A fake store in memory that counts the bytes it returns."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.sent = 0

    def put(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        self.objects[image_key(digest)] = data
        return digest

    def get_range(self, key: str, start: int, end: int) -> bytes:
        if key not in self.objects:
            raise NotFound(key)
        self.sent += len(self.objects[key][start:end])
        return self.objects[key][start:end]

    def get(self, key: str) -> bytes:
        return self.get_range(key, 0, 1 << 40)


def encoded(size: tuple[int, int], kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise(size, 90).save(buffer, kind, **options)
    return buffer.getvalue()


def sizes(store: MemoryStore, digests: list[str], most: int = 512) -> list[tuple[int, int]]:
    with TemporaryDirectory() as directory:
        return sample_sizes(Images(cast(ObjectStore, store), directory), digests, most)


def test_only_the_first_bytes_of_a_large_file_are_read() -> None:
    store = MemoryStore()
    digests = [store.put(encoded((900, 700))), store.put(encoded((300, 200), "JPEG"))]
    assert sorted(sizes(store, digests)) == [(300, 200), (900, 700)]
    assert store.sent < 2 * 64 * 1024 < len(store.objects[image_key(digests[0])])


def test_a_long_profile_before_the_size_is_read_with_the_whole_file() -> None:
    store = MemoryStore()
    digest = store.put(encoded((300, 200), "JPEG", icc_profile=bytes(200_000)))
    assert sizes(store, [digest]) == [(300, 200)]


def test_images_in_packs_have_sizes(tmp_path: Path) -> None:
    store = packed.MemoryStore()
    digests = packed.written(store, [encoded((30, 20)), encoded((9, 8))], pack_bytes=100_000)
    images = packed.reader(store, tmp_path)
    assert sample_sizes(images, digests, seed=1) in ([(30, 20), (9, 8)], [(9, 8), (30, 20)])


def test_missing_and_broken_images_are_left_out() -> None:
    store = MemoryStore()
    assert sizes(store, [store.put(b"no image"), "absent", store.put(encoded((8, 9)))]) == [(8, 9)]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_size_is_that_of_the_decoded_image(tmp_path: Path, kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    data, store = encoded((300, 200), kind, exif=exif), MemoryStore()
    digest, images = store.put(data), Images(cast(ObjectStore, store), tmp_path)
    size = (200, 300) if orientation > 4 else (300, 200)
    assert decode(data).size == size and read_sizes(images, [digest]) == {digest: size}


def test_each_distinct_image_is_read_once(tmp_path: Path) -> None:
    store, finished = MemoryStore(), []
    data = encoded((8, 9))
    digests = [store.put(data), store.put(data), "absent"]
    images = Images(cast(ObjectStore, store), tmp_path)
    found = read_sizes(images, digests, lambda: finished.append(1))
    assert found == {digests[0]: (8, 9)}
    assert store.sent == len(data) and len(finished) == 2


def test_a_sample_is_bounded_and_repeats_count() -> None:
    store = MemoryStore()
    digest = store.put(encoded((8, 9)))
    assert sizes(store, [digest] * 20, most=7) == [(8, 9)] * 7


def test_a_failing_store_is_an_error() -> None:
    class Down(MemoryStore):
        def get_range(self, key: str, start: int, end: int) -> bytes:
            raise StoreUnavailable(key)

    with pytest.raises(StoreUnavailable):
        sizes(Down(), ["any"])
