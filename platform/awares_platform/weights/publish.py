"""Publishing: tensors to shards, shards to the store, then the manifest, then HEAD.

A reader sees a version only once HEAD names it, so a publisher may die between any two of its writes. HEAD is written conditionally on
the HEAD that this publisher wrote last: whoever claimed the run since has fenced it. Shard names carry the writer's epoch, so a fenced
writer that still runs cannot touch the bytes of its successor.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from awares_platform.errors import NotFound, PreconditionFailed
from awares_platform.store import ObjectStore
from awares_platform.weights.manifest import Head, Manifest, Published, TensorEntry, WeightsError, digest, folder, version_folder

_ALIGNMENT = 64  # tensors begin at multiples of this, so that a reader can view them in place


class WriterFenced(WeightsError):
    """Another writer has taken over the run's weights."""


class Publisher:
    """The one writer of a run's weights. Creating it claims the run: an older publisher's next `publish` raises WriterFenced.

    Keeps the newest `keep` versions and deletes the rest, so a reader has `keep` - 1 publications of time to finish a fetch. Peak extra
    memory is twice a shard: `shard_bytes`, or the largest tensor.

    Example:
        publisher = Publisher(store, "mini")
        publisher.publish((publisher.version or 0) + 1, model.state_dict(), {"step": 1})
    """

    def __init__(self, store: ObjectStore, run: str, *, keep: int = 4, shard_bytes: int = 64 << 20) -> None:
        assert keep >= 1 and shard_bytes > 0
        self._store, self._run, self._keep, self._shard_bytes = store, run, keep, shard_bytes
        self._head_key = f"{folder(run)}/HEAD"
        self._head, self._etag = self._claim()

    @property
    def version(self) -> int | None:
        """The newest published version; None before the first. A resumed run goes on with the one after it."""
        return self._head.version

    def publish(self, version: int, state: Mapping[str, Tensor], extra: Mapping[str, Any] | None = None) -> Manifest:
        """Write `state` (names and shapes as in a transformers checkpoint) as `version` and point HEAD to it.

        `extra` must be JSON. Raises WeightsError for a version that is not newer than HEAD's, WriterFenced when another publisher has
        claimed the run, StoreError when the store fails; readers then go on with the version before.
        """
        if self.version is not None and version <= self.version:
            raise WeightsError(f"run {self._run}: version {version} is not newer than HEAD's {self.version}; go on with {self.version + 1}")
        self._check_fence()
        where = version_folder(self._run, version)
        entries = []
        for shard, data, members in self._shards(state):
            self._store.put(f"{where}/{shard}", bytes(data))
            entries.extend(members)
        manifest = Manifest(version, self._head.epoch, tuple(entries), dict(extra or {}))
        self._put_manifest(f"{where}/manifest.json", manifest.to_bytes())
        self._advance(Published(version, digest(manifest.to_bytes())))
        return manifest

    def _claim(self) -> tuple[Head, str]:
        """Raise the epoch in HEAD. Loses only against another claim at the same moment, and then tries again on top of that one."""
        while True:
            with contextlib.suppress(PreconditionFailed):
                try:
                    data, etag = self._store.get_with_etag(self._head_key)
                except NotFound:
                    head = Head(1)
                    return head, self._store.put(self._head_key, head.to_bytes(), if_none_match=True)
                before = Head.from_bytes(data)
                head = Head(before.epoch + 1, before.published)
                return head, self._store.put(self._head_key, head.to_bytes(), if_match=etag)

    def _shards(self, state: Mapping[str, Tensor]) -> Iterator[tuple[str, bytearray, list[TensorEntry]]]:
        data, members, count = bytearray(), [], 0
        for name, tensor in state.items():
            values = tensor.detach().to("cpu").contiguous().reshape(-1).view(torch.uint8).numpy().data
            if members and len(data) + len(values) > self._shard_bytes:
                yield self._shard_name(count), data, members
                data, members, count = bytearray(), [], count + 1
            data.extend(bytes(-len(data) % _ALIGNMENT))
            start = len(data)
            data.extend(values)
            dtype = str(tensor.dtype).removeprefix("torch.")
            members.append(TensorEntry(name, dtype, tuple(tensor.shape), self._shard_name(count), start, len(data), digest(values)))
        if members:
            yield self._shard_name(count), data, members

    def _shard_name(self, index: int) -> str:
        return f"e{self._head.epoch}-{index:05d}.bin"

    def _put_manifest(self, key: str, data: bytes) -> None:
        """Write the manifest over what a crashed publication may have left, but never over another writer's newer one."""
        try:
            self._store.put(key, data, if_none_match=True)
        except PreconditionFailed:
            _, etag = self._store.get_with_etag(key)
            self._check_fence()
            try:
                self._store.put(key, data, if_match=etag)
            except PreconditionFailed as error:
                raise self._fenced() from error

    def _advance(self, newest: Published) -> None:
        kept = (newest, *self._head.published)
        head = Head(self._head.epoch, kept[: self._keep])
        try:
            self._etag = self._store.put(self._head_key, head.to_bytes(), if_match=self._etag)
        except PreconditionFailed as error:
            raise self._fenced() from error
        self._head = head
        for retired in kept[self._keep :]:
            self._store.delete_prefix(f"{version_folder(self._run, retired.version)}/")

    def _check_fence(self) -> None:
        """Raise before uploading for nothing. The conditional write of HEAD is what really fences."""
        if self._store.head(self._head_key).etag != self._etag:
            raise self._fenced()

    def _fenced(self) -> WriterFenced:
        head = Head.from_bytes(self._store.get(self._head_key))
        return WriterFenced(
            f"run {self._run}: this writer (epoch {self._head.epoch}) is fenced: a writer of epoch {head.epoch} has claimed the weights, "
            f"HEAD is at version {head.version}. Two learners write to one run: stop this one, or give it another run.name"
        )
