"""Rank 0's side of publishing: what is published in which form, the manifests, HEAD, and what may be deleted."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from awares_platform.errors import StoreError
from awares_platform.store import ObjectStore
from awares_platform.weights.head import ANCHOR, FIRST, REPAIR, Form, Head, Published
from awares_platform.weights.manifest import Manifest, WeightsError, digest, version_folder
from awares_platform.weights.plan import Cadence, Costs, Identity, Plan
from awares_platform.weights.retention import Collector, answered, wanted
from awares_platform.weights.shards import Share, entries
from awares_platform.weights.writer import HeadWriter

log = logging.getLogger(__name__)


class Ledger:
    """Creating it claims the run: the writer before it is fenced from then on."""

    def __init__(self, store: ObjectStore, run: str, identity: Identity, cadence: Cadence) -> None:
        self._store, self._run, self._identity, self._cadence = store, run, identity, cadence
        self._writer = HeadWriter(store, run)
        self._collector = Collector(store, run, cadence.keep, cadence.grace_s)
        self._costs = Costs()
        self._newest: Manifest | None = None

    @property
    def version(self) -> int | None:
        """The newest published version."""
        return self._writer.head.version

    def plan(self, version: int | None, shadowed: int | None) -> Plan:
        """The next publication, or that of `version`; a delta only where the ranks still hold HEAD's version (`shadowed`).

        Raises WeightsError for a version that is not newer than HEAD's, WriterFenced, StoreError.
        """
        newest = self.version
        version = (newest or 0) + 1 if version is None else version
        if newest is not None and version <= newest:
            raise WeightsError(
                f"run {self._run}: version {version} is not newer than HEAD's {newest}; go on with {newest + 1}"
            )
        self._writer.check()
        base = newest if newest is not None and newest == shadowed else None
        anchor = (
            base is None
            or self._costs.want_anchor(self._cadence.anchor_every)
            or bool(wanted(self._store, self._run))
        )
        if anchor and self._costs.delta_is_useless:
            base = None
        return Plan(version, self._writer.head.epoch, base, anchor)

    def commit(
        self, plan: Plan, shares: Sequence[Mapping[str, Share]], extra: Mapping[str, Any], step: int
    ) -> tuple[Manifest, int]:
        """Manifests, HEAD, then garbage. Returns the manifest of the first form, and the bytes of all forms."""
        about = self._identity
        blank = Manifest(
            plan.version,
            plan.epoch,
            (),
            extra,
            None,
            step,
            None,
            about.processor,
            about.template,
            about.adapter,
        )
        manifests, forms = [], []
        for kind in shares[0]:
            base, changed = (
                (plan.base, _ratio([share[kind] for share in shares]))
                if kind == "delta"
                else (None, None)
            )
            tensors = entries([share[kind] for share in shares], plan.version)
            manifests.append(replace(blank, tensors=tensors, base=base, changed_ratio=changed))
            forms.append(self._write(manifests[-1], ANCHOR if forms else FIRST))
        newest = Published(plan.version, tuple(forms))
        self._writer.advance(
            self._collector.kept(Head(plan.epoch, (newest, *self._writer.head.published)))
        )
        self._costs.add(newest)
        self._newest = manifests[0]
        self._tidy(newest)
        return manifests[0], sum(form.size for form in forms)

    def repair(self, shares: Sequence[Mapping[str, Share]]) -> None:
        """Give the newest version a new anchor in place of whatever anchor it has."""
        assert self._newest is not None, "only what this writer published can be repaired by it"
        tensors = entries([share["anchor"] for share in shares], self._newest.version)
        form = self._write(
            replace(self._newest, tensors=tensors, base=None, changed_ratio=None), REPAIR
        )
        newest, *older = self._writer.head.published
        repaired = Published(
            newest.version, (*(known for known in newest.forms if known.base is not None), form)
        )
        self._writer.advance((repaired, *older))
        self._costs.add(repaired)
        self._tidy(repaired)

    def _write(self, manifest: Manifest, name: str) -> Form:
        data = manifest.to_bytes()
        self._writer.put_manifest(f"{version_folder(self._run, manifest.version)}/{name}", data)
        return Form(name, manifest.base, manifest.size, digest(data))

    def _tidy(self, newest: Published) -> None:
        """Delete what is no longer needed. The version is out: a failure is for the next time."""
        try:
            if newest.anchor is not None:
                answered(self._store, self._run)
            self._collector.collect(self._writer.head)
        except StoreError as error:
            log.warning("run %s: old weights were not deleted (%s)", self._run, error)


def _ratio(shares: Sequence[Share]) -> float:
    return sum(share.changed for share in shares) / max(1, sum(share.elements for share in shares))
