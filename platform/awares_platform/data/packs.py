"""Stores many small image files in one object, called a pack, to save requests to the store.

    images/packs/<sha-256>      image files, one after the other
    images/indexes/<sha-256>    parquet rows: an image's hash, its pack, its offset and its length

The keys end in the hash of the content, so different content never overwrites a pack.
"""

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from awares_platform.data.image_object import put_image
from awares_platform.store import ObjectStore

PACK_BYTES = 8 << 20
"""A writer stores a pack as soon as the pack has at least this number of bytes."""
LARGE_BYTES = 1 << 20
"""A writer stores an image of at least this number of bytes as a separate object."""
INDEX_SCHEMA = pa.schema(
    [
        pa.field("image", pa.string()),
        pa.field("pack", pa.string()),
        pa.field("offset", pa.int64()),
        pa.field("length", pa.int64()),
    ]
)


@dataclass(frozen=True, slots=True)
class PackPlace:
    """The place of an image: the key of its pack, and its offset and length in bytes.

    Example:
        PackPlace("images/packs/9f2c...", 81920, 27757)
    """

    pack: str
    offset: int
    length: int


class PackWriter:
    """Stores image files in packs. Each distinct image is stored once.

    Example:
        packs = PackWriter(store)
        samples = [Sample("q1", packs.put(path.read_bytes()), "What is the total?", "4.20")]
        write_samples(store, "invoices", "train", samples, packs=packs)
    """

    def __init__(self, store: ObjectStore, pack_bytes: int = PACK_BYTES) -> None:
        self._store = store
        self._pack_bytes = pack_bytes
        self._places: dict[str, PackPlace] = {}
        self._open: dict[str, bytes] = {}
        self._size = 0

    def put(self, data: bytes) -> str:
        """Add an image file, and return its hash.

        Readers find a packed file only after a manifest contains the key that `finish` returns.
        """
        if len(data) >= LARGE_BYTES:
            return put_image(self._store, data)
        digest = hashlib.sha256(data).hexdigest()
        if digest not in self._places and digest not in self._open:
            self._open[digest] = data
            self._size += len(data)
            if self._size >= self._pack_bytes:
                self._store_pack()
        return digest

    def include(self, places: Mapping[str, PackPlace]) -> None:
        """Add images of existing packs to the index. `places` maps image hashes to places."""
        self._places |= places

    def flush(self) -> Mapping[str, PackPlace]:
        """Store the last pack, and return a mapping from the hash of each image to its place."""
        if self._open:
            self._store_pack()
        return self._places

    def finish(self) -> str:
        """Store the last pack and the index, and return the key of the index."""
        data = encode_index(self.flush())
        key = f"images/indexes/{hashlib.sha256(data).hexdigest()}"
        self._store.put(key, data)
        return key

    def _store_pack(self) -> None:
        data = b"".join(self._open.values())
        key, offset = f"images/packs/{hashlib.sha256(data).hexdigest()}", 0
        # Write even if the object exists, because it may be damaged.
        self._store.put(key, data)
        for digest, image in self._open.items():
            self._places[digest] = PackPlace(key, offset, len(image))
            offset += len(image)
        self._open, self._size = {}, 0


def encode_index(places: Mapping[str, PackPlace]) -> bytes:
    """Encode `places`, which maps the hash of each image to its place, as a parquet file."""
    rows = [
        {"image": digest, "pack": place.pack, "offset": place.offset, "length": place.length}
        for digest, place in places.items()
    ]
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=INDEX_SCHEMA), buffer, compression="zstd")
    return buffer.getvalue()


def decode_index(data: bytes) -> dict[str, PackPlace]:
    """Decode an index, and return a mapping from the hash of each image to its place."""
    columns = pq.read_table(io.BytesIO(data)).to_pydict()
    places = zip(columns["pack"], columns["offset"], columns["length"], strict=True)
    return {
        digest: PackPlace(*place) for digest, place in zip(columns["image"], places, strict=True)
    }
