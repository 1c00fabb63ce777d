"""Lets rank 0 plan each publication, write the version's manifests, and overwrite HEAD.

`Ledger.plan` decides whether the ranks upload a delta, an anchor or both. After these uploads,
`Ledger.commit` writes the manifests, overwrites HEAD and deletes old versions.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from awares_platform.store import ObjectStore
from awares_platform.store.errors import StoreError
from awares_platform.weights.cadence import Cadence, ChainCost, Identity, PublicationPlan
from awares_platform.weights.head import ANCHOR, FIRST, REPAIR, Form, Head, PublishedVersion
from awares_platform.weights.manifest import Manifest, WeightsError, digest, version_folder
from awares_platform.weights.retention import (
    Collector,
    clear_anchor_requests,
    requested_anchors,
)
from awares_platform.weights.shards import RankUpload, merge
from awares_platform.weights.writer import HeadWriter

log = logging.getLogger(__name__)


class Ledger:
    """The record of a run's published versions. Only rank 0 has a ledger.

    Creating a ledger claims the run. Every earlier writer of the run is then fenced: it can no
    longer publish.
    """

    def __init__(self, store: ObjectStore, run: str, identity: Identity, cadence: Cadence) -> None:
        self._store, self._run, self._identity, self._cadence = store, run, identity, cadence
        self._writer = HeadWriter(store, run)
        self._collector = Collector(store, run, cadence.keep, cadence.grace_s)
        self._cost = ChainCost()
        self._newest: Manifest | None = None

    @property
    def version(self) -> int | None:
        """The newest published version, or None before the first publication."""
        return self._writer.head.version

    def plan(self, version: int | None, held: int | None) -> PublicationPlan:
        """Decide how to publish `version`, or the next version if `version` is None.

        `held` is the version in the ranks' memory, or None. Raises WeightsError if `version` is too
        old, WriterFenced if another writer has claimed the run, and StoreError if the store fails.
        """
        newest = self.version
        version = (newest or 0) + 1 if version is None else version
        if newest is not None and version <= newest:
            raise WeightsError(
                f"run {self._run}: version {version} is not newer than HEAD's {newest}; "
                f"go on with {newest + 1}"
            )
        self._writer.check()
        base = newest if newest is not None and newest == held else None
        anchor = (
            base is None
            or self._cost.want_anchor(self._cadence.anchor_every)
            or bool(requested_anchors(self._store, self._run))
        )
        if anchor and self._cost.delta_is_useless:
            base = None
        return PublicationPlan(version, self._writer.head.epoch, base, anchor)

    def commit(
        self,
        plan: PublicationPlan,
        uploads: Sequence[Mapping[str, RankUpload]],
        extra: Mapping[str, Any],
        step: int,
    ) -> tuple[Manifest, int]:
        """Write the manifests, add the version to HEAD, then delete old versions.

        `uploads` has one mapping per rank, with the key "delta", "anchor" or both. Return the
        manifest of the first key, and the total number of uploaded bytes.
        """
        manifests = [self._manifest(plan, kind, uploads, extra, step) for kind in uploads[0]]
        names = (FIRST, ANCHOR)
        forms = tuple(
            self._write(manifest, name) for manifest, name in zip(manifests, names, strict=False)
        )
        newest = PublishedVersion(plan.version, forms)
        head = Head(plan.epoch, (newest, *self._writer.head.published))
        self._writer.advance(self._collector.kept(head))
        self._cost.add(newest)
        self._newest = manifests[0]
        self._delete_old(newest)
        return manifests[0], sum(form.size for form in forms)

    def repair(self, uploads: Sequence[Mapping[str, RankUpload]]) -> None:
        """Publish the newest version once more, as an anchor, which holds all weights.

        If the version already has an anchor, the new anchor replaces the old one. `uploads` has one
        mapping per rank, with the key "anchor".
        """
        assert self._newest is not None, "a writer repairs only versions that it has published"
        tensors = merge([upload["anchor"] for upload in uploads], self._newest.version)
        anchor = replace(self._newest, tensors=tensors, base=None, changed_ratio=None)
        form = self._write(anchor, REPAIR)
        newest, *older = self._writer.head.published
        deltas = (known for known in newest.forms if known.base is not None)
        repaired = PublishedVersion(newest.version, (*deltas, form))
        self._writer.advance((repaired, *older))
        self._cost.add(repaired)
        self._delete_old(repaired)

    def _manifest(
        self,
        plan: PublicationPlan,
        kind: str,
        uploads: Sequence[Mapping[str, RankUpload]],
        extra: Mapping[str, Any],
        step: int,
    ) -> Manifest:
        form = [upload[kind] for upload in uploads]
        return Manifest(
            version=plan.version,
            epoch=plan.epoch,
            tensors=merge(form, plan.version),
            extra=extra,
            base=plan.base if kind == "delta" else None,
            step=step,
            changed_ratio=_changed_ratio(form) if kind == "delta" else None,
            processor=self._identity.processor,
            template=self._identity.template,
            adapter=self._identity.adapter,
        )

    def _write(self, manifest: Manifest, name: str) -> Form:
        data = manifest.to_bytes()
        self._writer.put_manifest(f"{version_folder(self._run, manifest.version)}/{name}", data)
        return Form(name, manifest.base, manifest.size, digest(data))

    def _delete_old(self, newest: PublishedVersion) -> None:
        """Delete old versions. If `newest` has an anchor, also delete all requests for anchors.

        If the store fails, log the failure. The next publication then tries the deletion again.
        """
        try:
            if newest.anchor is not None:
                clear_anchor_requests(self._store, self._run)
            self._collector.collect(self._writer.head)
        except StoreError as error:
            log.warning("run %s: old weights were not deleted (%s)", self._run, error)


def _changed_ratio(form: Sequence[RankUpload]) -> float:
    return sum(upload.changed for upload in form) / max(1, sum(upload.elements for upload in form))
