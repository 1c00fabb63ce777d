"""The manifest of a published version: its tensors, their pieces in the shards, and their hashes.

A chain of hashes proves a download: HEAD names the blake3 of each manifest, and the manifest names
the blake3 of each decoded piece. A reader rejects bytes that fail either check.
"""

import json
from collections.abc import Mapping
from dataclasses import astuple, dataclass, field
from math import prod
from typing import Any

from blake3 import blake3

from awares.errors import AwaresError

_SHOWN = 3
"""Most differences of one kind that an error message lists."""

Shapes = Mapping[str, tuple[int, ...]]
"""Tensor names and shapes."""


class WeightsError(AwaresError):
    """A weight version is absent, damaged or unfit; the message names the run and the version."""


def digest(data: bytes | bytearray | memoryview) -> str:
    """Hex blake3 of the bytes."""
    return blake3(data).hexdigest()


def folder(run: str) -> str:
    """Key prefix of a run's weights."""
    return f"runs/{run}/weights"


def version_folder(run: str, version: int) -> str:
    """Key prefix of one version."""
    return f"{folder(run)}/v{version:08d}"


@dataclass(frozen=True, slots=True)
class Piece:
    """Elements `start` to `end` (exclusive) of a flattened tensor: `length` bytes at `offset`
    of the weight shard `shard`.

    `length` is 0 if the elements are those of the base version. `kind` is the codec's.
    `blake3` is the hash of the decoded elements, little-endian.

    Example:
        Piece(0, 40960, "e1-r00000-00000.bin", 0, 1311, "ulp", "af13...")
    """

    start: int
    end: int
    shard: str
    offset: int
    length: int
    kind: str
    blake3: str


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor in row-major order, as pieces that cover it from the first to the last element.

    Example:
        TensorEntry("lm_head.weight", "bfloat16", (320, 128), (piece,))
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    pieces: tuple[Piece, ...]

    @property
    def hashes(self) -> tuple[tuple[int, str], ...]:
        """Last element and hash of each decoded piece: equal for equal tensors, in any form."""
        return tuple((piece.end, piece.blake3) for piece in self.pieces)


@dataclass(frozen=True, slots=True)
class Manifest:
    """One form of a published version: a delta to version `base`, or an anchor if it is None.

    `epoch` is the writer's and `step` the optimizer's. `changed_ratio` is the share of elements
    that differ from the base, None for an anchor. `processor` and `template` are the blake3 of
    the policy's image processor and chat template, "" if the writer had none. If `adapter` is
    set, the tensors are a LoRA adapter's and `adapter` is its scale. `extra` is JSON that
    travels with the weights, such as the canary.

    Example:
        Manifest(12, 1, (entry,), base=11, step=12, changed_ratio=0.031)
    """

    version: int
    epoch: int
    tensors: tuple[TensorEntry, ...]
    extra: Mapping[str, Any] = field(default_factory=dict)
    base: int | None = None
    step: int = 0
    changed_ratio: float | None = None
    processor: str = ""
    template: str = ""
    adapter: float | None = None

    @property
    def size(self) -> int:
        """Bytes of the weight shards to download."""
        return sum(piece.length for entry in self.tensors for piece in entry.pieces)

    @property
    def shards(self) -> dict[str, int]:
        """Names and lengths in bytes of the weight shards, in order."""
        lengths: dict[str, int] = {}
        for piece in self.pieces():
            if piece.length:
                lengths[piece.shard] = max(lengths.get(piece.shard, 0), piece.offset + piece.length)
        return lengths

    @property
    def shapes(self) -> Shapes:
        """Tensor names and shapes."""
        return {entry.name: entry.shape for entry in self.tensors}

    def pieces(self) -> list[Piece]:
        """Every piece of every tensor."""
        return [piece for entry in self.tensors for piece in entry.pieces]

    def changed_tensors(self, other: "Manifest | None") -> set[str]:
        """Names of the tensors that differ from those of `other`; all of them if it is None."""
        known = {} if other is None else {entry.name: entry.hashes for entry in other.tensors}
        return {entry.name for entry in self.tensors if known.get(entry.name) != entry.hashes}

    def to_bytes(self) -> bytes:
        """The manifest as JSON. Equal manifests give equal bytes."""
        values = {name: getattr(self, name) for name in _PLAIN} | {"extra": dict(self.extra)}
        tensors = [
            [entry.name, entry.dtype, entry.shape, [*map(astuple, entry.pieces)]]
            for entry in self.tensors
        ]
        document = {**values, "tensors": tensors}
        return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Manifest":
        """The inverse of `to_bytes`. Raises WeightsError for bytes that are not a manifest."""
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
    """Raise WeightsError unless `version` holds exactly the tensors of the engine's `policy`."""
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
