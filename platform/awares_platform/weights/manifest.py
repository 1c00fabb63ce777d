"""Defines the manifest, the JSON object that describes one delta or one anchor of a version.

An anchor holds all weights. A delta holds the difference from an older version. The manifest lists
the tensors, the pieces into which each tensor is cut, and the hash of each piece.

A chain of hashes verifies a download. HEAD contains the blake3 hash of each manifest, and a
manifest contains the blake3 hash of each decoded piece. A reader rejects a manifest or a piece with
a wrong hash.
"""

import json
from collections.abc import Mapping
from dataclasses import astuple, dataclass, field
from math import prod
from typing import Any

from blake3 import blake3

from awares.errors import AwaresError

_SHOWN = 3
"""Maximum number of tensors that an error message lists for each kind of difference."""

Shapes = Mapping[str, tuple[int, ...]]
"""Maps the name of each tensor to its shape."""


class WeightsError(AwaresError):
    """A weight version cannot be published, read or loaded.

    For example, the version is absent, damaged, or belongs to another model.
    """


def digest(data: bytes | bytearray | memoryview) -> str:
    """Return the blake3 hash of the bytes in hexadecimal."""
    return blake3(data).hexdigest()


def folder(run: str) -> str:
    """Return the key prefix of a run's weights in the store."""
    return f"runs/{run}/weights"


def version_folder(run: str, version: int) -> str:
    """Return the key prefix of one version in the store."""
    return f"{folder(run)}/v{version:08d}"


@dataclass(frozen=True, slots=True)
class Piece:
    """Elements `start` to `end` (exclusive) of a flattened tensor, and their place in a shard.

    Example:
        Piece(0, 40960, "e1-d-r00000-00000.bin", 0, 1311, "ulp", "af13...")
    """

    start: int
    end: int
    shard: str
    """The name of the weight shard with the encoded elements."""
    offset: int
    """The first encoded byte in the shard."""
    length: int
    """The number of encoded bytes, or 0 if the base version has the same elements."""
    kind: str
    """The kind of encoding that takes up the most bytes (see codec.kind)."""
    blake3: str
    """The hash of the decoded, little-endian elements."""


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """The description of one tensor in a manifest.

    `pieces` cover the tensor's elements in row-major order, from the first to the last.

    Example:
        TensorEntry("lm_head.weight", "bfloat16", (320, 128), (piece,))
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    pieces: tuple[Piece, ...]

    @property
    def hashes(self) -> tuple[tuple[int, str], ...]:
        """The end and the hash of each piece.

        Identical tensors that are cut into the same pieces have equal `hashes`, whether they come
        from deltas or anchors.
        """
        return tuple((piece.end, piece.blake3) for piece in self.pieces)


@dataclass(frozen=True, slots=True)
class Manifest:
    """The manifest of a delta to version `base`, or of an anchor if `base` is None.

    Example:
        Manifest(12, 1, (entry,), base=11, step=12, changed_ratio=0.031)
    """

    version: int
    """The version that the manifest describes."""
    epoch: int
    """The number of the writer. Each new writer of a run gets a higher number."""
    tensors: tuple[TensorEntry, ...]
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Additional JSON for the readers, such as logprobs with which the engine verifies weights."""
    base: int | None = None
    step: int = 0
    """The optimizer step."""
    changed_ratio: float | None = None
    """The share of elements that differ from the base, or None for an anchor."""
    processor: str = ""
    """`processor`, `template` and `adapter` are the fields of `cadence.Identity`."""
    template: str = ""
    adapter: float | None = None

    @property
    def size(self) -> int:
        """The total number of bytes of the weight shards."""
        return sum(piece.length for entry in self.tensors for piece in entry.pieces)

    @property
    def shards(self) -> dict[str, int]:
        """The length of each weight shard in bytes, by name, in the order of the pieces."""
        lengths: dict[str, int] = {}
        for piece in self.pieces():
            if piece.length:
                lengths[piece.shard] = max(lengths.get(piece.shard, 0), piece.offset + piece.length)
        return lengths

    @property
    def shapes(self) -> Shapes:
        """The shape of each tensor, by name."""
        return {entry.name: entry.shape for entry in self.tensors}

    def pieces(self) -> list[Piece]:
        """Return the pieces of all tensors."""
        return [piece for entry in self.tensors for piece in entry.pieces]

    def changed_tensors(self, other: "Manifest | None") -> set[str]:
        """Return the names of the tensors that have other hashes in `other`, or are absent from it.

        If `other` is None, return the names of all tensors.
        """
        known = {} if other is None else {entry.name: entry.hashes for entry in other.tensors}
        return {entry.name for entry in self.tensors if known.get(entry.name) != entry.hashes}

    def to_bytes(self) -> bytes:
        """Return the manifest as JSON. Equal manifests give equal bytes."""
        values = {name: getattr(self, name) for name in _PLAIN} | {"extra": dict(self.extra)}
        tensors = [
            [entry.name, entry.dtype, entry.shape, [*map(astuple, entry.pieces)]]
            for entry in self.tensors
        ]
        document = {**values, "tensors": tensors}
        return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Manifest":
        """Parse the result of `to_bytes`. Raises WeightsError if `data` is not a manifest."""
        try:
            values = json.loads(data)
            tensors = tuple(_entry(*row) for row in values["tensors"])
            return cls(
                tensors=tensors, extra=values["extra"], **{name: values[name] for name in _PLAIN}
            )
        except (ValueError, KeyError, TypeError) as error:
            raise WeightsError(f"not a manifest of weights: {error}") from error


_PLAIN = ("version", "epoch", "base", "step", "changed_ratio", "processor", "template", "adapter")


def _entry(name: str, dtype: str, shape: list[int], rows: list[list[Any]]) -> TensorEntry:
    pieces = tuple(Piece(*row) for row in rows)
    ends = [0, *(piece.end for piece in pieces)]
    if (
        [piece.start for piece in pieces] != ends[:-1]
        or ends[-1] != prod(shape)
        or any(piece.end < piece.start for piece in pieces)
    ):
        raise ValueError(f"the pieces of {name} do not cover its {prod(shape)} elements")
    return TensorEntry(name, dtype, tuple(shape), pieces)


def check_fit(expected: Shapes, received: Shapes, version: int, policy: str) -> None:
    """Raise WeightsError if `received` and `expected` differ in the names or shapes of tensors.

    `expected` belongs to the engine's policy, and `received` to the version. `version` and `policy`
    appear only in the message.
    """
    if expected == received:
        return
    both = sorted(expected.keys() & received.keys())
    kinds = {
        "missing": sorted(expected.keys() - received.keys()),
        "unknown": sorted(received.keys() - expected.keys()),
        "of another shape": [
            f"{name} {received[name]} for {expected[name]}"
            for name in both
            if received[name] != expected[name]
        ],
    }
    found = "; ".join(
        f"{len(names)} {kind}: {', '.join(names[:_SHOWN])}"
        for kind, names in kinds.items()
        if names
    )
    raise WeightsError(
        f"version {version} is of another model than the engine's ({policy}): {found}. "
        "Use one policy.base for both"
    )
