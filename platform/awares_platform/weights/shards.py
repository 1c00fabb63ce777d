"""Encoding and uploading: parts to pieces, pieces into shards, shards to the store. One instance per rank and form of a version."""

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

Shadow = Mapping[tuple[str, int], Tensor]
"""What was published last, by a piece's tensor and first element."""


@dataclass(frozen=True, slots=True)
class Written:
    """A piece of a tensor as uploaded, with what the manifest needs to know of its tensor.

    Example:
        Written("lm_head.weight", "bfloat16", (320, 128), piece)
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    piece: Piece


@dataclass(frozen=True, slots=True)
class Share:
    """What one rank uploaded of one form, and how many of its elements differ from the shadow.

    Example:
        Share((written,), changed=512, elements=40960)
    """

    written: tuple[Written, ...]
    changed: int
    elements: int

    def to_json(self) -> list[Any]:
        """Plain values."""
        return [[astuple(item) for item in self.written], self.changed, self.elements]

    @classmethod
    def from_json(cls, values: list[Any]) -> "Share":
        """The inverse of `to_json`."""
        rows, changed, elements = values
        return cls(
            tuple(
                Written(name, dtype, tuple(shape), Piece(*piece))
                for name, dtype, shape, piece in rows
            ),
            changed,
            elements,
        )


class ShardWriter:
    """Uploads pieces below `prefix`, a shard whenever `shard_bytes` are full. Holds a shard and one encoded piece at a time."""

    def __init__(self, store: ObjectStore, prefix: str, shard_bytes: int, threads: int) -> None:
        self._store, self._prefix, self._shard_bytes, self._threads = (
            store,
            prefix,
            shard_bytes,
            threads,
        )
        self._data, self._count = bytearray(), 0

    def write(self, parts: Iterable[Part], shadow: Shadow) -> Share:
        """Encode each part (a piece at most) against the shadow's, where it has one. Raises StoreError."""
        written, changed, elements = [], 0, 0
        for part in parts:
            base = shadow.get((part.name, part.start))
            blob = codec.encode(base, part.values, threads=self._threads)
            written.append(
                Written(
                    part.name,
                    str(part.values.dtype).removeprefix("torch."),
                    part.shape,
                    self._add(part, blob),
                )
            )
            elements += part.values.numel()
            changed += (
                part.values.numel()
                if base is None
                else _differing(base, part.values)
                if blob
                else 0
            )
        self._flush()
        return Share(tuple(written), changed, elements)

    def _add(self, part: Part, blob: bytes) -> Piece:
        if self._data and len(self._data) + len(blob) > self._shard_bytes:
            self._flush()
        offset = len(self._data)
        self._data += blob
        return Piece(
            part.start,
            part.end,
            self._name(),
            offset,
            len(blob),
            codec.kind(blob),
            digest(raw(part.values)),
        )

    def _flush(self) -> None:
        if self._data:
            self._store.put(f"{self._prefix}-{self._count:05d}.bin", bytes(self._data))
            self._data, self._count = bytearray(), self._count + 1

    def _name(self) -> str:
        return f"{self._prefix.rpartition('/')[2]}-{self._count:05d}.bin"


def raw(values: Tensor) -> memoryview:
    """The bytes of a contiguous CPU tensor, in place."""
    return values.reshape(-1).view(torch.uint8).numpy().data


def _differing(base: Tensor, new: Tensor) -> int:
    kind = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[new.element_size()]
    return int(torch.count_nonzero(base.view(kind) != new.view(kind)))


def entries(shares: Sequence[Share], version: int) -> tuple[TensorEntry, ...]:
    """The tensors that the ranks wrote together. Raises WeightsError where they left a gap, wrote twice, or disagree."""
    found: dict[str, list[Written]] = {}
    for item in (item for share in shares for item in share.written):
        found.setdefault(item.name, []).append(item)
    return tuple(_joined(name, items, version) for name, items in found.items())


def _joined(name: str, items: list[Written], version: int) -> TensorEntry:
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
            f"version {version}: the ranks' parts of {name} do not make up one tensor of {elements} elements: {held}"
        )
    return TensorEntry(name, first.dtype, first.shape, tuple(item.piece for item in items))


def index(shares: Mapping[str, Share]) -> bytes:
    """A rank's shares, by form, as the object that it leaves for rank 0."""
    return json.dumps(
        {form: share.to_json() for form, share in shares.items()}, separators=(",", ":")
    ).encode()


def read_index(data: bytes) -> dict[str, Share]:
    """The inverse of `index`."""
    return {form: Share.from_json(values) for form, values in json.loads(data).items()}
