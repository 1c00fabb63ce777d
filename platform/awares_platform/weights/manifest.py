"""What a published version holds: manifest.json, and anchor.json where a version has two forms.

Trust goes one way: HEAD names the blake3 of a manifest, the manifest names the blake3 of every piece of every tensor as it must come out.
Whatever does not hash to what HEAD leads to was not published.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

from blake3 import blake3

from awares.errors import AwaresError

_SHOWN = 3  # differences that an error message lists

Shapes = Mapping[str, tuple[int, ...]]


class WeightsError(AwaresError):
    """A weight version is absent, damaged or does not fit; names the run and the version."""


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
    """Elements start to end (exclusive) of a flattened tensor, encoded as `length` bytes at `offset` of a shard; none at all where the
    base's are unchanged. `blake3` is that of the decoded elements, little-endian.

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
    """One tensor, row-major, as pieces that cover it from first to last element; several where several ranks wrote it.

    Example:
        TensorEntry("lm_head.weight", "bfloat16", (320, 128), (piece,))
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    pieces: tuple[Piece, ...]

    @property
    def result(self) -> tuple[tuple[int, str], ...]:
        """What the tensor must come out as, whatever it was encoded against."""
        return tuple((piece.end, piece.blake3) for piece in self.pieces)


@dataclass(frozen=True, slots=True)
class Manifest:
    """One form of a published version: all of it (an anchor, `base` None), or what has to be done to version `base`.

    `epoch` is its writer's, `step` the optimizer's, `changed` the share of elements that differ from the version before (None without one).
    `processor` and `template` are the blake3 of the policy's image processor and chat template, "" where the writer had none. With
    `adapter` set the tensors are a LoRA adapter's, `adapter` its scale. `extra` is JSON that travels with the weights (the canary).

    Example:
        Manifest(12, 1, (entry,), base=11, step=12, changed=0.031)
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
        """Bytes to download."""
        return sum(piece.length for entry in self.tensors for piece in entry.pieces)

    @property
    def shards(self) -> dict[str, int]:
        """Shard name to its length in bytes, in order."""
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

    def changed(self, other: "Manifest | None") -> set[str]:
        """Names of the tensors that differ from those of `other`."""
        known = {} if other is None else {entry.name: entry.result for entry in other.tensors}
        return {entry.name for entry in self.tensors if known.get(entry.name) != entry.result}

    def to_bytes(self) -> bytes:
        """JSON, the same bytes for the same manifest."""
        values = {name: getattr(self, name) for name in _PLAIN} | {"extra": dict(self.extra)}
        tensors = [
            [entry.name, entry.dtype, entry.shape, [_row(piece) for piece in entry.pieces]]
            for entry in self.tensors
        ]
        return json.dumps(
            {**values, "tensors": tensors}, separators=(",", ":"), sort_keys=True
        ).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Manifest":
        """Raises WeightsError for anything that is no manifest."""
        try:
            values = json.loads(data)
            tensors = tuple(_entry(*row) for row in values["tensors"])
            return cls(
                tensors=tensors, extra=values["extra"], **{name: values[name] for name in _PLAIN}
            )
        except (ValueError, KeyError, TypeError) as error:
            raise WeightsError(f"no manifest of weights: {error}") from error


_PLAIN = ("version", "epoch", "base", "step", "changed_ratio", "processor", "template", "adapter")


def _row(piece: Piece) -> list[Any]:
    return [
        piece.start,
        piece.end,
        piece.shard,
        piece.offset,
        piece.length,
        piece.kind,
        piece.blake3,
    ]


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
    """Raise WeightsError unless `version` holds exactly the tensors that the engine's `policy` has."""
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
        f"version {version} is of another model than the engine's ({policy}): {found}. Use one policy.base for both"
    )
