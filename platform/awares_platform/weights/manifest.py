"""What a published version holds (manifest.json) and which versions are published (HEAD).

Trust goes one way: HEAD names the blake3 of a manifest, the manifest names the blake3 of every tensor. Whatever does not hash to what
HEAD leads to was not published.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
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
class TensorEntry:
    """Where one tensor lies: bytes start to end (exclusive) of a shard, little-endian and row-major. `blake3` is the result's.

    Example:
        TensorEntry("lm_head.weight", "bfloat16", (320, 128), "e1-00000.bin", 0, 81920, "af13...")
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    shard: str
    start: int
    end: int
    blake3: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """One published version. `epoch` is its writer's; `extra` is JSON that travels with the weights (the canary, the step).

    Example:
        Manifest(12, 1, (entry,), {"step": 12})
    """

    version: int
    epoch: int
    tensors: tuple[TensorEntry, ...]
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of all tensors."""
        return sum(entry.end - entry.start for entry in self.tensors)

    @property
    def shards(self) -> dict[str, int]:
        """Shard name to its length in bytes, in order."""
        lengths: dict[str, int] = {}
        for entry in self.tensors:
            lengths[entry.shard] = max(lengths.get(entry.shard, 0), entry.end)
        return lengths

    @property
    def shapes(self) -> Shapes:
        """Tensor names and shapes."""
        return {entry.name: entry.shape for entry in self.tensors}

    def changed(self, other: "Manifest | None") -> set[str]:
        """Names of the tensors that differ from those of `other`."""
        known = {} if other is None else {entry.name: entry.blake3 for entry in other.tensors}
        return {entry.name for entry in self.tensors if known.get(entry.name) != entry.blake3}

    def to_bytes(self) -> bytes:
        """JSON, the same bytes for the same manifest."""
        return json.dumps(asdict(self), separators=(",", ":"), sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Manifest":
        """Raises WeightsError for anything that is no manifest."""
        try:
            values = json.loads(data)
            tensors = tuple(TensorEntry(**{**entry, "shape": tuple(entry["shape"])}) for entry in values["tensors"])
            return cls(int(values["version"]), int(values["epoch"]), tensors, values["extra"])
        except (ValueError, KeyError, TypeError) as error:
            raise WeightsError(f"no manifest of weights: {error}") from error


@dataclass(frozen=True, slots=True)
class Published:
    """One published version and the blake3 of its manifest."""

    version: int
    manifest: str


@dataclass(frozen=True, slots=True)
class Head:
    """The one mutable object: the writer's epoch and the versions that can be fetched, newest first.

    Example:
        Head(1, (Published(12, "9c0e..."), Published(11, "07aa...")))
    """

    epoch: int
    published: tuple[Published, ...] = ()

    @property
    def version(self) -> int | None:
        """The newest version; None before the first."""
        return self.published[0].version if self.published else None

    def find(self, version: int) -> Published | None:
        """The entry of `version`; None if it is not published, or no longer kept."""
        return next((entry for entry in self.published if entry.version == version), None)

    def to_bytes(self) -> bytes:
        """JSON."""
        return json.dumps(asdict(self), separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Head":
        """Raises WeightsError for anything that is no HEAD."""
        try:
            values = json.loads(data)
            published = tuple(Published(int(entry["version"]), str(entry["manifest"])) for entry in values["published"])
            return cls(int(values["epoch"]), published)
        except (ValueError, KeyError, TypeError) as error:
            raise WeightsError(f"no HEAD of weights: {error}") from error


def check_fit(expected: Shapes, received: Shapes, version: int, policy: str) -> None:
    """Raise WeightsError unless `version` holds exactly the tensors that the engine's `policy` has."""
    if expected == received:
        return
    both = sorted(expected.keys() & received.keys())
    kinds = {
        "missing": sorted(expected.keys() - received.keys()),
        "unknown": sorted(received.keys() - expected.keys()),
        "of another shape": [f"{name} {received[name]} for {expected[name]}" for name in both if received[name] != expected[name]],
    }
    found = "; ".join(f"{len(names)} {kind}: {', '.join(names[:_SHOWN])}" for kind, names in kinds.items() if names)
    raise WeightsError(f"version {version} is of another model than the engine's ({policy}): {found}. Use one policy.base for both")
