"""The right to write a run's weights: claimed by raising the epoch in HEAD, lost to whoever raises it next.

HEAD is written conditionally on the HEAD that this writer wrote last, so a writer that was overtaken can no longer publish. Names of shards
carry the epoch, so a fenced writer that still runs cannot touch the bytes of its successor.

A HEAD that is damaged (a writer killed in mid-request can leave an empty one on some servers) is rebuilt by the next writer from the
manifests: these were written after all that they name.
"""

import contextlib
import logging
from collections.abc import Sequence

from awares_platform.errors import NotFound, PreconditionFailed
from awares_platform.store import ObjectStore
from awares_platform.weights.head import FORM_NAMES, Form, Head, Published, head_key
from awares_platform.weights.manifest import Manifest, WeightsError, digest, folder

log = logging.getLogger(__name__)


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
                before = self._read(data)
                head = Head(before.epoch + 1, before.published)
                return head, self._store.put(self._key, head.to_bytes(), if_match=etag)

    def _read(self, data: bytes) -> Head:
        try:
            return Head.from_bytes(data)
        except WeightsError as error:
            log.warning(
                "run %s: HEAD is damaged (%s); it is rebuilt from the manifests", self._run, error
            )
            return rebuilt(self._store, self._run)

    def _fenced(self) -> WriterFenced:
        head = self._read(self._store.get(self._key))
        return WriterFenced(
            f"run {self._run}: this writer (epoch {self._head.epoch}) is fenced: a writer of epoch {head.epoch} has claimed the weights, "
            f"HEAD is at version {head.version}. Two learners write to one run: stop this one, or give it another run.name"
        )


def rebuilt(store: ObjectStore, run: str) -> Head:
    """A HEAD that names every version of which there is a manifest, of the newest epoch. Manifests that do not parse are left out."""
    epoch, found = 0, dict[int, list[Form]]()
    for info in store.list(f"{folder(run)}/v"):
        if info.key.endswith(".json") and (name := info.key.rpartition("/")[2]) in FORM_NAMES:
            data = store.get(info.key)
            try:
                manifest = Manifest.from_bytes(data)
            except WeightsError:
                continue
            epoch = max(epoch, manifest.epoch)
            found.setdefault(manifest.version, []).append(
                Form(name, manifest.base, manifest.size, digest(data))
            )
    return Head(
        epoch,
        tuple(
            Published(version, tuple(forms))
            for version, forms in sorted(found.items(), reverse=True)
        ),
    )
