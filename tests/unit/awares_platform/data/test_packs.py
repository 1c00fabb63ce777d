"""Tests that images in packs are read back, with few requests and with verified hashes."""

import hashlib
import json
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awares.errors import DataError
from awares_platform.data import object_cache
from awares_platform.data.images import Images, image_key
from awares_platform.data.manifest import read_manifest, write_manifest
from awares_platform.data.packs import (
    LARGE_BYTES,
    PackPlace,
    PackWriter,
    decode_index,
    encode_index,
)
from awares_platform.store import ObjectStore
from awares_platform.store.errors import NotFound

DIGEST = st.binary(min_size=32, max_size=32).map(bytes.hex)
PLACE = st.builds(PackPlace, st.text(max_size=80), *[st.integers(0, 2**63 - 1)] * 2)


class MemoryStore:
    """A fake store in memory that records the calls that read an object."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.reads: list[str] = []

    def put(self, key: str, data: bytes, **_: bool) -> str:
        self.objects[key] = data
        return ""

    def get(self, key: str) -> bytes:
        self.reads.append(key)
        if key not in self.objects:
            raise NotFound(key)
        return self.objects[key]

    def get_range(self, key: str, start: int, end: int) -> bytes:
        self.reads.append(f"{key} {start}-{end}")
        return self.objects[key][start:end]

    def exists(self, key: str) -> bool:
        return key in self.objects


def written(store: MemoryStore, images: list[bytes], pack_bytes: int = 1000) -> list[str]:
    """Write a split whose images are in packs, and return the hashes of the images."""
    packs = PackWriter(cast(ObjectStore, store), pack_bytes)
    digests = [packs.put(image) for image in images]
    write_manifest(cast(ObjectStore, store), "set", "train", [], 0, images=packs.finish())
    return digests


def reader(store: MemoryStore, directory: Path) -> Images:
    splits = [("set", "train"), ("set", "test")]
    return Images(cast(ObjectStore, store), directory, splits=splits)


def pack_keys(store: MemoryStore) -> list[str]:
    return [key for key in store.objects if key.startswith("images/packs/")]


@given(st.dictionaries(DIGEST, PLACE, max_size=20))
def test_an_index_is_read_back(places: dict[str, PackPlace]) -> None:
    assert decode_index(encode_index(places)) == places


@given(st.lists(st.binary(max_size=40), max_size=30), st.integers(1, 200))
def test_packed_images_are_read_back(images: list[bytes], pack_bytes: int) -> None:
    store, directory = MemoryStore(), Path(tempfile.mkdtemp())
    try:
        digests = written(store, images, pack_bytes)
        read = reader(store, directory).read
        assert [read(digest) for digest in digests] == images
    finally:
        shutil.rmtree(directory)
    assert digests == [hashlib.sha256(image).hexdigest() for image in images]
    packs = [store.objects[key] for key in pack_keys(store)]
    assert sum(map(len, packs)) == sum(map(len, set(images)))
    assert all(len(pack) < pack_bytes + 40 for pack in packs)
    assert not [key for key in store.objects if key in map(image_key, digests)]


def test_a_pack_is_fetched_once_by_many_threads(tmp_path: Path) -> None:
    store = MemoryStore()
    digests = written(store, [bytes([index]) * 50 for index in range(60)])
    read = reader(store, tmp_path).read
    with ThreadPoolExecutor(16) as pool:
        assert len(set(pool.map(read, digests * 3))) == 60
    assert sorted(key for key in store.reads if "packs" in key) == sorted(pack_keys(store))
    store.reads.clear()
    reader(store, tmp_path).read(digests[0])
    assert store.reads == ["datasets/set/train/manifest.json"]


def test_a_damaged_local_copy_is_fetched_again(tmp_path: Path) -> None:
    store = MemoryStore()
    digests = written(store, [b"one image", b"another image"])
    read = reader(store, tmp_path).read
    read(digests[0])
    [key] = pack_keys(store)
    [copy] = tmp_path.glob(f"*/{key.rpartition('/')[2]}")
    copy.write_bytes(b"one image, but")
    assert (read(digests[0]), read(digests[1])) == (b"one image", b"another image")
    assert copy.read_bytes() == store.objects[key] and store.reads.count(key) == 2


def test_without_room_on_the_disk_only_the_image_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MemoryStore()
    digests = written(store, [b"one image", b"another image"])
    monkeypatch.setattr(object_cache, "KEEP_FREE_BYTES", 1 << 60)
    assert reader(store, tmp_path).read(digests[1]) == b"another image"
    assert store.reads[-1] == f"{pack_keys(store)[0]} 9-22"
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_large_image_and_one_put_singly_are_objects_of_their_own(tmp_path: Path) -> None:
    store = MemoryStore()
    large, single = bytes(LARGE_BYTES), b"put singly"
    digests = written(store, [large, b"small"])
    digest = hashlib.sha256(single).hexdigest()
    store.objects[image_key(digest)] = single
    read = reader(store, tmp_path).read
    assert (read(digests[0]), read(digests[1]), read(digest)) == (large, b"small", single)
    assert image_key(digests[0]) in store.objects and image_key(digests[1]) not in store.objects


def test_a_damaged_or_missing_index_is_named(tmp_path: Path) -> None:
    store = MemoryStore()
    [digest] = written(store, [b"one image"])
    key = read_manifest(cast(ObjectStore, store), "set", "train")["images"]
    index = store.objects[key]
    store.objects[key] = index[:-1] + bytes([index[-1] ^ 1])
    with pytest.raises(DataError, match=f"{key} is damaged: its bytes hash to .*write the split"):
        reader(store, tmp_path / "a").read(digest)
    del store.objects[key]
    with pytest.raises(DataError, match=f"{key} is missing .*write the split"):
        reader(store, tmp_path / "b").read(digest)


def test_a_manifest_from_before_packs_names_no_index(tmp_path: Path) -> None:
    store = MemoryStore()
    store.objects["datasets/set/train/manifest.json"] = json.dumps({"shards": []}).encode()
    with pytest.raises(DataError, match="is missing .*put_image"):
        reader(store, tmp_path).read("f" * 64)
