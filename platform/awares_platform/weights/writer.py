"""The right to write a run's weights: claimed by raising the epoch in HEAD, lost to whoever raises it next.

HEAD is written conditionally on the HEAD that this writer wrote last, so a writer that was overtaken can no longer publish. Names of shards
carry the epoch, so a fenced writer that still runs cannot touch the bytes of its successor.
"""

import contextlib
from collections.abc import Sequence

from awares_platform.errors import NotFound, PreconditionFailed
from awares_platform.store import ObjectStore
from awares_platform.weights.head import Head, Published, head_key
from awares_platform.weights.manifest import WeightsError


class WriterFenced(WeightsError):
    """Another writer has taken over the run's weights."""


class HeadWriter:
    """Holds HEAD for one writer. Creating it claims the run: the writer before it is fenced from then on."""

    def __init__(self, store: ObjectStore, run: str) -> None:
        self._store, self._run, self._key = store, run, head_key(run)
        self._head, self._etag = self._claim()

    @property
    def head(self) -> Head:
        """HEAD as this writer wrote it last."""
        return self._head

    def advance(self, published: Sequence[Published]) -> None:
        """Point HEAD to these versions, newest first. Raises WriterFenced."""
        head = Head(self._head.epoch, tuple(published))
        try:
            self._etag = self._store.put(self._key, head.to_bytes(), if_match=self._etag)
        except PreconditionFailed as error:
            raise self._fenced() from error
        self._head = head

    def check(self) -> None:
        """Raise WriterFenced before uploading for nothing. `advance` is what really fences."""
        if self._store.head(self._key).etag != self._etag:
            raise self._fenced()

    def put_manifest(self, key: str, data: bytes) -> None:
        """Write a manifest over what a crashed publication may have left, but never over another writer's newer one."""
        try:
            self._store.put(key, data, if_none_match=True)
        except PreconditionFailed:
            _, etag = self._store.get_with_etag(key)
            self.check()
            try:
                self._store.put(key, data, if_match=etag)
            except PreconditionFailed as error:
                raise self._fenced() from error

    def _claim(self) -> tuple[Head, str]:
        """Raise the epoch in HEAD. Loses only against another claim at the same moment, and then tries again on top of that one."""
        while True:
            with contextlib.suppress(PreconditionFailed):
                try:
                    data, etag = self._store.get_with_etag(self._key)
                except NotFound:
                    head = Head(1)
                    return head, self._store.put(self._key, head.to_bytes(), if_none_match=True)
                before = Head.from_bytes(data)
                head = Head(before.epoch + 1, before.published)
                return head, self._store.put(self._key, head.to_bytes(), if_match=etag)

    def _fenced(self) -> WriterFenced:
        head = Head.from_bytes(self._store.get(self._key))
        return WriterFenced(
            f"run {self._run}: this writer (epoch {self._head.epoch}) is fenced: a writer of epoch {head.epoch} has claimed the weights, "
            f"HEAD is at version {head.version}. Two learners write to one run: stop this one, or give it another run.name"
        )
