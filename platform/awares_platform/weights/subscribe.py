"""Subscribing: find HEAD, download a version, verify every byte, and only then hand it out."""

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from awares_platform.errors import NotFound
from awares_platform.store import ObjectStore
from awares_platform.weights.manifest import Head, Manifest, TensorEntry, WeightsError, digest, folder, version_folder

_CONNECTIONS = 4


@dataclass(frozen=True, slots=True)
class Received:
    """A verified version: tensors on the CPU in the manifest's order, and the seconds of downloading and of hashing.

    Example:
        Received(manifest, {"lm_head.weight": tensor}, 0.04, 0.01)
    """

    manifest: Manifest
    state: Mapping[str, Tensor]
    fetch_s: float
    verify_s: float


class Subscriber:
    """A reader of a run's weights. Picklable; holds no tensors.

    Example:
        subscriber = Subscriber(store, "mini")
        if (version := subscriber.head()) is not None:
            state = subscriber.fetch(version)
    """

    def __init__(self, store: ObjectStore, run: str) -> None:
        self.store, self.run = store, run
        self._seen = Head(0)

    def head(self) -> int | None:
        """The newest published version, None before the first: one small request."""
        try:
            self._seen = Head.from_bytes(self.store.get(f"{folder(self.run)}/HEAD"))
        except NotFound:
            return None
        return self._seen.version

    def manifest(self, version: int) -> Manifest:
        """The manifest of a published version, verified against HEAD.

        Raises WeightsError for a version that HEAD does not lead to or a manifest that does not hash right.
        """
        published = self._seen.find(version)
        if published is None:
            newest = self.head()
            published = self._seen.find(version)
        if published is None:
            raise WeightsError(f"run {self.run}: version {version} is not published or no longer kept; HEAD is at {newest}: take that one")
        key = f"{version_folder(self.run, version)}/manifest.json"
        try:
            data = self.store.get(key)
        except NotFound as error:
            raise WeightsError(f"run {self.run}: version {version} has just been retired; take the newest ({self.head()})") from error
        if digest(data) != published.manifest:
            raise WeightsError(f"run {self.run}: {key} does not hash to what HEAD names; publish version {version} again as a new one")
        return Manifest.from_bytes(data)

    def fetch(self, version: int) -> dict[str, Tensor]:
        """All tensors of a version, verified. Raises WeightsError; never returns part of a version."""
        return dict(self.receive(version).state)

    def receive(self, version: int) -> Received:
        """Like `fetch`, with the manifest and the seconds. Holds the version's bytes once."""
        started = time.perf_counter()
        manifest = self.manifest(version)
        with ThreadPoolExecutor(_CONNECTIONS) as pool:
            shards = dict(zip(manifest.shards, pool.map(lambda shard: self._shard(manifest, shard), manifest.shards), strict=True))
        fetched = time.perf_counter()
        state = {entry.name: self._tensor(manifest, entry, shards[entry.shard]) for entry in manifest.tensors}
        return Received(manifest, state, fetched - started, time.perf_counter() - fetched)

    def _shard(self, manifest: Manifest, shard: str) -> bytearray:
        key = f"{version_folder(self.run, manifest.version)}/{shard}"
        try:
            data = self.store.get(key)
        except NotFound as error:
            raise WeightsError(f"run {self.run}: {key} is missing; take the newest version ({self.head()})") from error
        if len(data) < manifest.shards[shard]:
            raise WeightsError(f"run {self.run}: {key} is truncated: {len(data)} of {manifest.shards[shard]} bytes; take another version")
        return bytearray(data)  # writable, as torch wants its buffers

    def _tensor(self, manifest: Manifest, entry: TensorEntry, shard: bytearray) -> Tensor:
        data = memoryview(shard)[entry.start : entry.end]
        if digest(data) != entry.blake3:
            raise WeightsError(
                f"run {self.run}: tensor {entry.name} of version {manifest.version} ({entry.shard}, bytes {entry.start} to {entry.end}) "
                "does not hash to what its manifest names: the object is damaged; take another version"
            )
        if not len(data):
            return torch.empty(entry.shape, dtype=getattr(torch, entry.dtype))
        return torch.frombuffer(data, dtype=getattr(torch, entry.dtype)).reshape(entry.shape)
