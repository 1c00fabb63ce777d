"""Ensures that only one writer at a time can publish a run's weights.

A writer claims the run by raising the epoch in HEAD. Later the writer overwrites HEAD only if
HEAD still holds the writer's own last write. This condition fails if another writer has claimed the
run meanwhile. The older writer is then fenced: it can no longer publish. Shard names contain the
epoch, so a fenced writer cannot overwrite the shards of its successor.

Some S3 servers leave an empty HEAD if a writer is killed while it writes HEAD. The next writer then
rebuilds HEAD from the manifests. A manifest is written after all its shards, so every manifest in
the store describes complete data.
"""

import contextlib
import logging
from collections.abc import Sequence

from awares.errors import Fenced
from awares_platform.store import ObjectStore
from awares_platform.store.errors import NotFound, PreconditionFailed
from awares_platform.weights.head import (
    FORM_NAMES,
    REPAIR,
    Form,
    Head,
    PublishedVersion,
    head_key,
)
from awares_platform.weights.manifest import Manifest, WeightsError, digest, folder

log = logging.getLogger(__name__)


class WriterFenced(WeightsError, Fenced):
    """Another writer has claimed the run's weights, so this writer can no longer publish."""


class HeadWriter:
    """Reads and overwrites HEAD for one writer.

    Creating a HeadWriter claims the run. Earlier writers of the run can then no longer publish.
    """

    def __init__(self, store: ObjectStore, run: str) -> None:
        self._store, self._run, self._key = store, run, head_key(run)
        self._head, self._etag = self._claim()

    @property
    def head(self) -> Head:
        """The HEAD that this writer wrote last."""
        return self._head

    def advance(self, published: Sequence[PublishedVersion]) -> None:
        """Write a HEAD that names the versions `published`, newest first.

        Raises WriterFenced if another writer has claimed the run.
        """
        head = Head(self._head.epoch, tuple(published))
        try:
            self._etag = self._store.put(self._key, head.to_bytes(), if_match=self._etag)
        except PreconditionFailed as error:
            raise self._fenced() from error
        self._head = head

    def check(self) -> None:
        """Raise WriterFenced if another writer has claimed the run.

        The check avoids a useless upload. Another writer may still claim the run right after the
        check. `advance` detects this case.
        """
        if self._store.head(self._key).etag != self._etag:
            raise self._fenced()

    def put_manifest(self, key: str, data: bytes) -> None:
        """Write a manifest. Replace a manifest that a crashed publication left at `key`.

        Raises WriterFenced if a manifest is to be replaced but a newer writer has claimed the run.
        """
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
        """Raise the epoch in HEAD, and return the new HEAD and its etag.

        If another writer claims the run meanwhile, the method tries again.
        """
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
            message = "run %s: HEAD is damaged (%s); it is rebuilt from the manifests"
            log.warning(message, self._run, error)
            return rebuilt(self._store, self._run)

    def _fenced(self) -> WriterFenced:
        head = self._read(self._store.get(self._key))
        return WriterFenced(
            f"run {self._run}: this writer (epoch {self._head.epoch}) is fenced: a writer of epoch "
            f"{head.epoch} has claimed the weights, HEAD is at version {head.version}. Two "
            "learners write to one run: stop this one, or give it another run.name"
        )


def rebuilt(store: ObjectStore, run: str) -> Head:
    """Build a HEAD from the manifests in the store.

    The HEAD has the highest epoch of all manifests, and names every version with a readable
    manifest. A repaired anchor replaces the damaged one.
    """
    epoch, found = 0, dict[int, list[Form]]()
    for info in store.list(f"{folder(run)}/v"):
        if info.key.endswith(".json") and (name := info.key.rpartition("/")[2]) in FORM_NAMES:
            data = store.get(info.key)
            try:
                manifest = Manifest.from_bytes(data)
            except WeightsError:
                continue
            epoch = max(epoch, manifest.epoch)
            form = Form(name, manifest.base, manifest.size, digest(data))
            found.setdefault(manifest.version, []).append(form)
    newest_first = sorted(found.items(), reverse=True)
    return Head(
        epoch, tuple(PublishedVersion(version, _sound(forms)) for version, forms in newest_first)
    )


def _sound(forms: Sequence[Form]) -> tuple[Form, ...]:
    """Return the deltas and anchors of a version, without an anchor that a repair has replaced."""
    repaired = any(form.name == REPAIR for form in forms)
    return tuple(
        form for form in forms if form.base is not None or form.name == REPAIR or not repaired
    )
