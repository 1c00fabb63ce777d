"""Publishing: every rank encodes and uploads what it owns, rank 0 writes the manifest, then HEAD.

    rank r   begin(parts) -> [ encode against what was published last -> *.bin -> index of rank r ]     beside the next training step
    rank 0                   [ own share -> wait for the indexes -> ledger.py: manifest.json, anchor.json -> HEAD ]

The ranks speak through the store, never through collectives: nothing here can interleave with training, and a rank that died is missed
after a timeout. A reader sees a version only once HEAD names it, so any rank may die between any two of its writes.

A version is a delta to the one before it, and now and then an anchor besides: when the deltas since the last anchor would cost a joiner
more than a new anchor does, every `anchor_every` versions, and when a reader that found damage asks for one.
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

from awares_platform.errors import StoreError
from awares_platform.store import ObjectStore
from awares_platform.weights import shards
from awares_platform.weights.ledger import Ledger
from awares_platform.weights.manifest import Manifest, WeightsError, version_folder
from awares_platform.weights.parts import Part, pieces, whole
from awares_platform.weights.plan import Cadence, Identity, Plan
from awares_platform.weights.retention import wanted
from awares_platform.weights.shards import ShardWriter, Share

log = logging.getLogger(__name__)
_POLL_S = 0.05
_REPAIR_S = 20.0  # for the ranks to come together; the next publication waits behind it
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Publication:
    """A finished publication as rank 0 saw it: the version's first form, the bytes of all its forms,
    and the seconds from `begin` to HEAD.

    Example:
        Publication(manifest, size=135000, seconds=0.2)
    """

    manifest: Manifest
    size: int
    seconds: float

    def figures(self) -> dict[str, float]:
        """As metrics."""
        whole = sum(
            prod(entry.shape) * getattr(torch, entry.dtype).itemsize
            for entry in self.manifest.tensors
        )
        changed = (
            {}
            if self.manifest.changed_ratio is None
            else {"weights/changed": self.manifest.changed_ratio}
        )
        return {
            "weights/bytes": float(self.size),
            "weights/share": self.manifest.size / whole,
            "time/publication": self.seconds,
            **changed,
        }


def _alone(value: T) -> T:
    return value


class Publisher:
    """One rank's part in writing a run's weights. Creating it on rank 0 claims the run: an older publisher's next publication raises
    WriterFenced. One publication runs at a time, in a thread; `begin` waits for the one before and raises what failed in it.

    Holds this rank's parts as published last, while encoding also the new ones, and a shard of `shard_bytes`. `agree` returns rank 0's
    value on every rank; all ranks call it together.

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
        agree: Callable[[Any], Any] = _alone,
        identity: Identity | None = None,
        cadence: Cadence | None = None,
        shard_bytes: int = 64 << 20,
        threads: int = 1,
        timeout_s: float = 600.0,
    ) -> None:
        self._store, self._run, self._rank, self._ranks, self._agree = (
            store,
            run,
            rank,
            ranks,
            agree,
        )
        self._shard_bytes, self._threads, self._timeout_s = shard_bytes, threads, timeout_s
        self._ledger = (
            Ledger(store, run, identity or Identity(), cadence or Cadence()) if rank == 0 else None
        )
        self._version: int | None = agree(self._ledger.version if self._ledger else None)
        self._held: list[Part] = []  # what was published last
        self._plan: Plan | None = None  # and how
        self._last: Publication | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="publish")
        self._running: Future[Publication | None] | None = None
        self._repairing: Future[None] | None = None

    @property
    def version(self) -> int | None:
        """The newest version that was published or is being published; None before the first. A resumed run goes on with the next."""
        return self._version

    @property
    def last(self) -> Publication | None:
        """The last publication that `wait` waited for; None on other ranks than 0."""
        return self._last

    def publish(
        self,
        version: int,
        state: Mapping[str, Tensor],
        extra: Mapping[str, Any] | None = None,
        *,
        step: int = 0,
    ) -> Manifest:
        """Write `state` (names and shapes as in a transformers checkpoint) as `version`, point HEAD to it, and return its manifest. For
        a writer that is alone.

        `extra` must be JSON. Raises WeightsError for a version that is not newer than HEAD's, WriterFenced when another publisher has
        claimed the run, StoreError when the store fails; readers then go on with the version before.
        """
        assert self._ranks == 1, "publish is for one writer; ranks call begin"
        self.begin(
            whole({name: tensor.detach().clone() for name, tensor in state.items()}),
            extra,
            step=step,
            version=version,
        )
        self.wait()
        assert self._last is not None, "rank 0 knows what it published"
        return self._last.manifest

    def begin(
        self,
        parts: Sequence[Part],
        extra: Mapping[str, Any] | None = None,
        *,
        step: int = 0,
        version: int | None = None,
    ) -> int:
        """Start to publish this rank's `parts` as the next version, or as `version`, which is returned. Every rank calls it.

        The parts' memory belongs to the publisher from here on. Raises as `publish`, also for the publication before.
        """
        self.wait()
        held = self._plan.version if self._plan else None
        plan: Plan = self._agree(self._ledger.plan(version, held) if self._ledger else None)
        self._version = plan.version
        self._running = self._thread.submit(
            self._publish, plan, list(pieces(parts)), dict(extra or {}), step
        )
        return plan.version

    def wait(self) -> None:
        """Returns when neither a publication nor a repair runs. Raises what failed in the publication, once."""
        if self._repairing is not None:
            self._repairing.result()  # its failures are in the log; HEAD is its until it ends
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
        """Look whether a reader found no undamaged way to the newest version, and begin to upload an anchor of it. To be called by every
        rank now and then while it has nothing to publish: readers that are stuck would otherwise wait for a version that waits for them.

        Raises what failed in the last publication.
        """
        if (self._running is not None and not self._running.done()) or (
            self._repairing is not None and not self._repairing.done()
        ):
            return
        self.wait()
        self._repairing = self._thread.submit(self._repair)

    # -- in the thread -----------------------------------------------------------------------------------------------------------

    def _publish(
        self, plan: Plan, parts: list[Part], extra: dict[str, Any], step: int
    ) -> Publication | None:
        started, shares, publication = time.monotonic(), {}, None
        if plan.base is not None:
            known = self._held if self._plan is not None and self._plan.version == plan.base else []
            shares["delta"] = self._upload(
                plan, "d", parts, {(part.name, part.start): part.values for part in known}
            )
        if plan.anchor:
            shares["anchor"] = self._upload(plan, "a", parts, {})
        if (
            everyone := self._gather(plan, "r", shares, self._timeout_s)
        ) is not None and self._ledger is not None:
            manifest, size = self._ledger.commit(plan, everyone, extra, step)
            publication = Publication(manifest, size, time.monotonic() - started)
        self._held, self._plan = parts, plan
        return publication

    def _repair(self) -> None:
        """An anchor of what is held, where one is wanted. What fails here is tried again."""
        plan = self._plan
        if plan is None:
            return
        try:
            if plan.version not in wanted(self._store, self._run):
                return
            shares = self._gather(
                plan, "x", {"anchor": self._upload(plan, "x", self._held, {})}, _REPAIR_S
            )
            if shares is not None and self._ledger is not None:
                self._ledger.repair(shares)
                log.info(
                    "run %s: version %d has a new anchor, for a reader that found damage",
                    self._run,
                    plan.version,
                )
        except (StoreError, WeightsError) as error:
            log.warning(
                "run %s: version %d could not be repaired (%s)", self._run, plan.version, error
            )

    def _upload(self, plan: Plan, form: str, parts: list[Part], shadow: shards.Shadow) -> Share:
        prefix = f"{version_folder(self._run, plan.version)}/e{plan.epoch}-{form}-r{self._rank:05d}"
        return ShardWriter(self._store, prefix, self._shard_bytes, self._threads).write(
            parts, shadow
        )

    def _gather(
        self, plan: Plan, kind: str, own: dict[str, Share], timeout_s: float
    ) -> list[dict[str, Share]] | None:
        """Every rank's shares, on rank 0; the others leave theirs for it. Raises WeightsError naming the ranks that did not in time."""
        prefix = f"{version_folder(self._run, plan.version)}/e{plan.epoch}-{kind}"
        if self._rank:
            self._store.put(f"{prefix}{self._rank:05d}.json", shards.index(own))
            return None
        keys, deadline = (
            {f"{prefix}{rank:05d}.json": rank for rank in range(1, self._ranks)},
            time.monotonic() + timeout_s,
        )
        while keys and (missing := keys.keys() - {info.key for info in self._store.list(prefix)}):
            if time.monotonic() > deadline:
                ranks = sorted(keys[key] for key in missing)
                raise WeightsError(
                    f"run {self._run}: version {plan.version} is not complete: ranks {ranks} of {self._ranks} did not upload their parts "
                    f"within {timeout_s:g} s; see their logs"
                )
            time.sleep(_POLL_S)
        return [own, *(shards.read_index(self._store.get(key)) for key in keys)]
