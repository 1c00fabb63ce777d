"""Encodes one rank's pieces and uploads them in weight shards.

A weight shard is a *.bin object with many encoded pieces, so one request uploads many small
tensors. The manifest lists the offset of each piece.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import torch
from torch import Tensor

from awares_platform.store import ObjectStore
from awares_platform.weights import codec
from awares_platform.weights.manifest import Piece, TensorEntry, WeightsError, digest
from awares_platform.weights.parts import Part

BasePieces = Mapping[tuple[str, int], Tensor]
"""Maps (tensor name, start of a piece) to the values of this piece in the base version."""

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True, slots=True)
class UploadedPiece:
    """An uploaded piece, with the name, dtype and shape of its tensor.

    Example:
        UploadedPiece("lm_head.weight", "bfloat16", (320, 128), piece)
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    piece: Piece


@dataclass(frozen=True, slots=True)
class RankUpload:
    """The pieces that one rank uploaded for one delta or one anchor.

    Example:
        RankUpload((uploaded_piece,), changed=512, elements=40960)
    """

    pieces: tuple[UploadedPiece, ...]
    changed: int
    """The number of elements that differ from the base, or have no base."""
    elements: int
    """The number of elements in the pieces."""

    def to_json(self) -> list[Any]:
        """Return the upload as lists, strings and numbers for JSON."""
        return [[astuple(item) for item in self.pieces], self.changed, self.elements]

    @classmethod
    def from_json(cls, values: list[Any]) -> "RankUpload":
        """Restore an upload from the result of `to_json`."""
        rows, changed, elements = values
        pieces = (
            UploadedPiece(name, dtype, tuple(shape), Piece(*piece))
            for name, dtype, shape, piece in rows
        )
        return cls(tuple(pieces), changed, elements)


class ShardWriter:
    """Writes one rank's shards of one delta or one anchor, under keys that begin with `prefix`.

    The writer holds one shard of at most about `shard_bytes`, and one encoded piece, in memory.
    """

    def __init__(self, store: ObjectStore, prefix: str, shard_bytes: int, threads: int) -> None:
        self._store, self._prefix = store, prefix
        self._shard_bytes, self._threads = shard_bytes, threads
        self._data, self._count = bytearray(), 0

    def write(self, parts: Iterable[Part], base_pieces: BasePieces) -> RankUpload:
        """Encode and upload the parts. A part may have at most PIECE_ELEMENTS elements.

        A part is encoded as a delta if `base_pieces` has the part's values in the base version.
        Raises StoreError if the store fails.
        """
        uploaded, changed, elements = [], 0, 0
        for part in parts:
            base = base_pieces.get((part.name, part.start))
            blob = codec.encode(base, part.values, threads=self._threads)
            dtype = str(part.values.dtype).removeprefix("torch.")
            uploaded.append(UploadedPiece(part.name, dtype, part.shape, self._add(part, blob)))
            elements += part.values.numel()
            if base is None:
                changed += part.values.numel()
            elif blob:
                changed += _count_changed(base, part.values)
        self._flush()
        return RankUpload(tuple(uploaded), changed, elements)

    def _add(self, part: Part, blob: bytes) -> Piece:
        if self._data and len(self._data) + len(blob) > self._shard_bytes:
            self._flush()
        offset = len(self._data)
        self._data += blob
        return Piece(
            start=part.start,
            end=part.end,
            shard=self._key().rpartition("/")[2],
            offset=offset,
            length=len(blob),
            kind=codec.kind(blob),
            blake3=digest(raw(part.values)),
        )

    def _flush(self) -> None:
        if self._data:
            self._store.put(self._key(), bytes(self._data))
            self._data, self._count = bytearray(), self._count + 1

    def _key(self) -> str:
        return f"{self._prefix}-{self._count:05d}.bin"


def raw(values: Tensor) -> memoryview:
    """Return the memory of a contiguous CPU tensor as bytes, without a copy."""
    return values.reshape(-1).view(torch.uint8).numpy().data


def _count_changed(base: Tensor, new: Tensor) -> int:
    """Return the number of elements whose bits differ between `base` and `new`.

    The elements are compared as integers, because NaN != NaN and -0 == 0 for floats.
    """
    integer = _INTEGERS[new.element_size()]
    return int(torch.count_nonzero(base.view(integer) != new.view(integer)))


def merge(uploads: Sequence[RankUpload], version: int) -> tuple[TensorEntry, ...]:
    """Return the manifest's entries of all tensors, made from the pieces that the ranks uploaded.

    Raises WeightsError if the pieces of a tensor leave a gap, overlap, or disagree in dtype or
    shape.
    """
    by_tensor: dict[str, list[UploadedPiece]] = {}
    for upload in uploads:
        for item in upload.pieces:
            by_tensor.setdefault(item.name, []).append(item)
    return tuple(_entry(name, items, version) for name, items in by_tensor.items())


def _entry(name: str, items: list[UploadedPiece], version: int) -> TensorEntry:
    items = sorted(items, key=lambda item: (item.piece.start, item.piece.end))
    first = items[0]
    ends = [0, *(item.piece.end for item in items)]
    elements = torch.Size(first.shape).numel()
    alike = all((item.dtype, item.shape) == (first.dtype, first.shape) for item in items)
    if not alike or [item.piece.start for item in items] != ends[:-1] or ends[-1] != elements:
        held = ", ".join(
            f"{item.dtype} {item.piece.start} to {item.piece.end} of {item.shape}" for item in items
        )
        raise WeightsError(
            f"version {version}: the ranks' parts of {name} do not make up one tensor of "
            f"{elements} elements: {held}"
        )
    return TensorEntry(name, first.dtype, first.shape, tuple(item.piece for item in items))


def index_bytes(uploads: Mapping[str, RankUpload]) -> bytes:
    """Return `uploads` as JSON. Its keys are "delta", "anchor" or both."""
    values = {form: upload.to_json() for form, upload in uploads.items()}
    return json.dumps(values, separators=(",", ":")).encode()


def read_index(data: bytes) -> dict[str, RankUpload]:
    """Return the mapping `uploads` from which `index_bytes` made `data`."""
    return {form: RankUpload.from_json(values) for form, values in json.loads(data).items()}
