"""Publishes weight versions: all ranks upload their parts, then rank 0 writes manifests and HEAD.

Every rank passes its parts to `Publisher.begin`. A background thread of the rank then encodes the
parts and uploads them in shards (*.bin), while the next training step runs. Each rank except rank 0
also uploads an index: a JSON object that lists the pieces that the rank uploaded. Rank 0 waits for
the indexes of the other ranks. It then writes the manifests, and overwrites HEAD last.

The background threads of the ranks communicate through the store and not by collectives, because
the training uses collectives at the same time. If a rank dies, rank 0 times out and does not write
HEAD. Readers see only versions that HEAD names, so they never see an incomplete version.

A delta holds the difference from the previous version. An anchor holds all weights, and needs no
other version. Most versions are published only as a delta. The next version is published as an
anchor, with or without a delta, in four cases:
- The ranks do not hold the newest version of HEAD, for example because the job has just started.
- The deltas since the last anchor and the next delta would together be larger than that anchor.
  An anchor is then cheaper for a new reader. The next delta is assumed to be as large as the last.
- The next version would be `anchor_every` versions after the last anchor.
- A reader found damage and requests an anchor.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from typing import Any, TypeVar

import torch
from torch import Tensor

from awares_platform.store import ObjectStore
from awares_platform.store.errors import StoreError
from awares_platform.weights.cadence import Cadence, Identity, PublicationPlan
from awares_platform.weights.ledger import Ledger
from awares_platform.weights.manifest import Manifest, WeightsError, version_folder
from awares_platform.weights.parts import Part, split, whole_parts
from awares_platform.weights.retention import requested_anchors
from awares_platform.weights.shards import (
    BasePieces,
    RankUpload,
    ShardWriter,
    index_bytes,
    read_index,
)

log = logging.getLogger(__name__)
_POLL_S = 0.05
_REPAIR_S = 20.0
"""The longest time in seconds for which rank 0 waits for the other ranks' uploads in a repair.

A repair publishes a new anchor after a reader found damage. The next publication cannot start
before the end of the repair.
"""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Publication:
    """The record of a finished publication. Only rank 0 has such a record.

    Example:
        Publication(manifest, size=135000, seconds=0.2)
    """

    manifest: Manifest
    """The manifest of the delta, or of the anchor if the version has no delta."""
    size: int
    """The total number of bytes of the delta and the anchor."""
    seconds: float
    """The time that the background thread took."""

    def metrics(self) -> dict[str, float]:
        """Return the publication's metrics by name.

        `weights/share` is the size of the delta, or of the anchor if there is no delta, divided by
        the size of the unencoded weights.
        """
        unencoded = sum(
            prod(entry.shape) * getattr(torch, entry.dtype).itemsize
            for entry in self.manifest.tensors
        )
        metrics = {
            "weights/bytes": float(self.size),
            "weights/share": self.manifest.size / unencoded,
            "time/publication": self.seconds,
        }
        if self.manifest.changed_ratio is not None:
            metrics["weights/changed"] = self.manifest.changed_ratio
        return metrics


def _single_rank(value: T) -> T:
    """Return `value`. This is the default of `agree`, for a run with a single rank."""
    return value


class Publisher:
    """Publishes one rank's share of a run's weights, one version at a time, in a thread.

    - A new publisher on rank 0 claims the run. Older publishers then raise WriterFenced.
    - `agree` is a collective that returns rank 0's value on every rank.
    - `timeout_s` is how long rank 0 waits for the uploads of the other ranks, in seconds.

    Example:
        publisher = Publisher(store, "mini")
        publisher.publish((publisher.version or 0) + 1, model.state_dict(), {"step": 1})
    """

    def __init__(
        self,
        store: ObjectStore,
        run: str,
        *,
        rank: int = 0,
        ranks: int = 1,
        agree: Callable[[Any], Any] = _single_rank,
        identity: Identity | None = None,
        cadence: Cadence | None = None,
        shard_bytes: int = 64 << 20,
        threads: int = 1,
        timeout_s: float = 600.0,
    ) -> None:
        self._store, self._run = store, run
        self._rank, self._ranks, self._agree = rank, ranks, agree
        self._shard_bytes, self._threads, self._timeout_s = shard_bytes, threads, timeout_s
        self._ledger: Ledger | None = None
        if rank == 0:
            self._ledger = Ledger(store, run, identity or Identity(), cadence or Cadence())
        self._version: int | None = agree(self._ledger.version if self._ledger else None)
        # This rank's pieces of the last published version, and the plan of that publication.
        self._held: list[Part] = []
        self._plan: PublicationPlan | None = None
        self._last: Publication | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="publish")
        self._running: Future[Publication | None] | None = None
        self._repairing: Future[None] | None = None

    @property
    def version(self) -> int | None:
        """The newest version, or None before the first publication.

        The publication of this version may still be running.
        """
        return self._version

    @property
    def last(self) -> Publication | None:
        """The last finished publication, or None before the first publication ends.

        On ranks other than 0 the value is always None.
        """
        return self._last

    def publish(
        self,
        version: int,
        state: Mapping[str, Tensor],
        extra: Mapping[str, Any] | None = None,
        *,
        step: int = 0,
    ) -> Manifest:
        """Publish `state` as `version`, wait until HEAD names it, and return the manifest.

        Only a run with a single rank may call this method. Raises WeightsError if `version` is too
        old, WriterFenced if another publisher has the run, or StoreError.
        """
        assert self._ranks == 1, "publish is for a single rank; several ranks call begin"
        copy = {name: tensor.detach().clone() for name, tensor in state.items()}
        self.begin(whole_parts(copy), extra, step=step, version=version)
        self.wait()
        assert self._last is not None, "rank 0 has the finished publication"
        return self._last.manifest

    def begin(
        self,
        parts: Sequence[Part],
        extra: Mapping[str, Any] | None = None,
        *,
        step: int = 0,
        version: int | None = None,
    ) -> int:
        """Start to publish this rank's `parts`, and return the number of the version.

        Every rank must call this method, and must not change the parts later. Raises the errors of
        `publish`, also those of the previous publication.
        """
        self.wait()
        held = self._plan.version if self._plan else None
        plan: PublicationPlan = self._agree(
            self._ledger.plan(version, held) if self._ledger else None
        )
        self._version = plan.version
        self._running = self._thread.submit(
            self._publish, plan, list(split(parts)), dict(extra or {}), step
        )
        return plan.version

    def wait(self) -> None:
        """Wait for the running publication or repair.

        Raises the error of the publication. A second call does not raise this error again.
        """
        if self._repairing is not None:
            self._repairing.result()  # The repair may still write HEAD, so wait.
        running, self._running = self._running, None
        if running is None:
            return
        try:
            self._last = running.result()
        except BaseException:
            if self._ledger is not None:
                self._version = self._ledger.version
            raise

    def repair(self) -> None:
        """Start to upload an anchor (all weights) of the newest version if a reader requested one.

        Every rank must call this method regularly while it waits. Otherwise, the learner and a
        reader may wait for each other forever.
        """
        if (self._running is not None and not self._running.done()) or (
            self._repairing is not None and not self._repairing.done()
        ):
            return
        self.wait()
        self._repairing = self._thread.submit(self._repair)

    # -- methods that run in the publisher's thread ----------------------------------------------

    def _publish(
        self, plan: PublicationPlan, parts: list[Part], extra: dict[str, Any], step: int
    ) -> Publication | None:
        started, uploads, publication = time.monotonic(), {}, None
        if plan.base is not None:
            holds_base = self._plan is not None and self._plan.version == plan.base
            known = self._held if holds_base else []
            base = {(part.name, part.start): part.values for part in known}
            uploads["delta"] = self._upload(plan, "d", parts, base)
        if plan.anchor:
            uploads["anchor"] = self._upload(plan, "a", parts, {})
        everyone = self._gather(plan, "r", uploads, self._timeout_s)
        if everyone is not None and self._ledger is not None:
            manifest, size = self._ledger.commit(plan, everyone, extra, step)
            publication = Publication(manifest, size, time.monotonic() - started)
        self._held, self._plan = parts, plan
        return publication

    def _repair(self) -> None:
        """Publish an anchor (all weights) of the last version if a reader has requested one.

        After a failure, the next call of `repair` tries again.
        """
        plan = self._plan
        if plan is None:
            return
        try:
            if plan.version not in requested_anchors(self._store, self._run):
                return
            own = {"anchor": self._upload(plan, "x", self._held, {})}
            everyone = self._gather(plan, "x", own, _REPAIR_S)
            if everyone is not None and self._ledger is not None:
                self._ledger.repair(everyone)
                message = "run %s: version %d has a new anchor, for a reader that found damage"
                log.info(message, self._run, plan.version)
        except (StoreError, WeightsError) as error:
            message = "run %s: version %d could not be repaired (%s)"
            log.warning(message, self._run, plan.version, error)

    def _upload(
        self, plan: PublicationPlan, form: str, parts: list[Part], base: BasePieces
    ) -> RankUpload:
        prefix = f"{version_folder(self._run, plan.version)}/e{plan.epoch}-{form}-r{self._rank:05d}"
        writer = ShardWriter(self._store, prefix, self._shard_bytes, self._threads)
        return writer.write(parts, base)

    def _gather(
        self, plan: PublicationPlan, kind: str, own: dict[str, RankUpload], timeout_s: float
    ) -> list[dict[str, RankUpload]] | None:
        """Return the indexes of all ranks on rank 0, and None on the other ranks.

        An index lists what a rank uploaded. Rank 0 raises WeightsError if an index is missing after
        `timeout_s` seconds.
        """
        prefix = f"{version_folder(self._run, plan.version)}/e{plan.epoch}-{kind}"
        if self._rank:
            self._store.put(f"{prefix}{self._rank:05d}.json", index_bytes(own))
            return None
        keys = {f"{prefix}{rank:05d}.json": rank for rank in range(1, self._ranks)}
        deadline = time.monotonic() + timeout_s
        while keys and (missing := keys.keys() - {info.key for info in self._store.list(prefix)}):
            if time.monotonic() > deadline:
                ranks = sorted(keys[key] for key in missing)
                raise WeightsError(
                    f"run {self._run}: version {plan.version} is not complete: ranks {ranks} of "
                    f"{self._ranks} did not upload their parts within {timeout_s:g} s; see their "
                    "logs"
                )
            time.sleep(_POLL_S)
        return [own, *(read_index(self._store.get(key)) for key in keys)]
