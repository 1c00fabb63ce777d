"""The subscriber: read HEAD, download the cheapest hops to a version, decode, and verify.

A version is handed out only after every one of its tensors has the hash that was published.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from awares_platform.store import ObjectStore
from awares_platform.store.errors import NotFound
from awares_platform.weights.assemble import State, assemble, verify
from awares_platform.weights.fetch import fetch_shards
from awares_platform.weights.head import Head, Hop, PublishedVersion, head_key
from awares_platform.weights.lease import lease
from awares_platform.weights.manifest import Manifest, WeightsError, digest, version_folder
from awares_platform.weights.retention import request_anchor

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Received:
    """A verified version. `state` holds its tensors on the CPU, in the manifest's order.

    `hops` counts the manifests and `size` the bytes that were downloaded. The seconds are those
    of waiting for bytes, decoding and hashing. `detours` counts the attempts that met damage.

    Example:
        state = {"lm_head.weight": tensor}
        Received(manifest, state, 1, 135000, fetch_s=0.04, decode_s=0.01, verify_s=0.01)
    """

    manifest: Manifest
    state: Mapping[str, Tensor]
    hops: int
    size: int
    fetch_s: float
    decode_s: float
    verify_s: float
    detours: int = 0


class _Damaged(WeightsError):
    """A download differs from the published version.

    `hops` names the damaged ones. If it is empty, the damage may be in any hop or in the held
    version.
    """

    def __init__(self, reason: str, hops: tuple[Hop, ...] = ()) -> None:
        super().__init__(reason)
        self.hops = hops


class Subscriber:
    """A reader of a run's weights. It is picklable, because the caller holds the tensors.

    `seen` is the HEAD that was read last.

    Example:
        subscriber = Subscriber(store, "mini")
        held = None
        while (version := subscriber.head()) is not None:
            held = subscriber.receive(version, held)  # loads deltas if they are smaller
    """

    def __init__(
        self, store: ObjectStore, run: str, *, connections: int = 4, threads: int = 1
    ) -> None:
        self.store, self.run, self._connections, self._threads = store, run, connections, threads
        self.seen = Head(0)

    def head(self) -> int | None:
        """Read HEAD, and return the newest version or None before the first."""
        try:
            self.seen = Head.from_bytes(self.store.get(head_key(self.run)))
        except NotFound:
            return None
        return self.seen.version

    def manifest(self, version: int) -> Manifest:
        """The manifest of any form of a published version, verified against HEAD.

        Raises WeightsError if HEAD does not name the version or all its manifests are damaged;
        in the latter case it requests an anchor from the writer.
        """
        damage: WeightsError | None = None
        for form in self._find(version).forms:
            try:
                return self._read(Hop(version, form))
            except WeightsError as error:
                damage = damage or error
        raise self._stuck(version, damage) from damage

    def fetch(self, version: int) -> dict[str, Tensor]:
        """All tensors of a version, verified. Raises WeightsError or StoreError."""
        return dict(self.receive(version).state)

    def receive(self, version: int, held: Received | None = None) -> Received:
        """Download a version onto `held` or from an anchor, whichever takes fewer bytes.

        `held` is not modified. Memory: the version, the tensors of `held` that differ from it,
        and a few weight shards. If the result is damaged, the same hops are read once more; then
        other hops are tried, first without `held`. If none are left, an anchor is requested from
        the writer. Raises WeightsError or StoreError.
        """
        self._find(version)
        avoid: set[Hop] = set()
        damage: _Damaged | None = None
        detours = 0
        while True:
            hops = self.seen.path(version, held.manifest.version if held else None, avoid)
            if hops is None:
                raise self._stuck(version, damage) from damage
            try:
                with lease(self.store, self.run, {version, *(hop.version for hop in hops)}):
                    return replace(self.walk(hops, held), detours=detours)
            except _Damaged as error:
                log.warning("%s; trying %s", error, "other hops" if damage else "once more")
                detours += 1
                if damage is None:  # Read the same hops again: the network may have damaged them.
                    damage = error
                elif held is not None and not error.hops:
                    held = None
                else:
                    avoid.update(error.hops or hops)

    def walk(self, hops: Sequence[Hop], held: Received | None = None) -> Received:
        """Load these hops, in order, onto `held`. `receive` chooses the hops.

        Only the result is hashed: its hashes also prove the hops below it. Raises WeightsError or
        StoreError.
        """
        started, decode_s = time.perf_counter(), 0.0
        manifest, state = (held.manifest, held.state) if held else (None, {})
        for hop in hops:
            try:
                manifest = self._read(hop)
                shards = fetch_shards(self.store, self.run, manifest, self._connections)
                base = {} if hop.form.base is None else state
                state, seconds = assemble(manifest, base, shards, self._threads)
            except WeightsError as error:
                raise _Damaged(f"version {hop.version}: {error}", (hop,)) from error
            decode_s += seconds
        assert manifest is not None, "without a held version there is at least one hop"
        decoded = time.perf_counter()
        self._verify(manifest, state, held)
        return Received(
            manifest,
            state,
            hops=len(hops),
            size=sum(hop.form.size for hop in hops),
            fetch_s=decoded - started - decode_s,
            decode_s=decode_s,
            verify_s=time.perf_counter() - decoded,
        )

    def _find(self, version: int) -> PublishedVersion:
        """The version's entry in HEAD, read again if `seen` lacks it. Raises WeightsError."""
        if (published := self.seen.find(version)) is None:
            newest = self.head()
            published = self.seen.find(version)
            if published is None:
                raise WeightsError(
                    f"run {self.run}: version {version} is not published or no longer kept; "
                    f"HEAD is at {newest}: take that one"
                )
        return published

    def _stuck(self, version: int, damage: WeightsError | None) -> WeightsError:
        """Request an anchor from the writer, and return the error that says so."""
        request_anchor(self.store, self.run, version)
        reason = damage or f"run {self.run}: no published form leads to version {version}"
        return WeightsError(f"{reason}; asked the writer for an anchor")

    def _verify(self, manifest: Manifest, state: State, held: Received | None) -> None:
        known, proven = (held.manifest, held.state) if held else (None, {})
        try:
            verify(manifest, state, known, proven, self._threads)
        except WeightsError as error:
            raise _Damaged(f"run {self.run}: {error}") from error

    def _read(self, hop: Hop) -> Manifest:
        key = f"{version_folder(self.run, hop.version)}/{hop.form.name}"
        try:
            data = self.store.get(key)
        except NotFound as error:
            raise WeightsError(
                f"run {self.run}: version {hop.version} has just been retired; take the newest "
                f"({self.head()})"
            ) from error
        if digest(data) != hop.form.digest:
            raise WeightsError(f"run {self.run}: {key} does not have the hash that HEAD names")
        manifest = Manifest.from_bytes(data)
        if (manifest.version, manifest.base) != (hop.version, hop.form.base):
            raise WeightsError(
                f"run {self.run}: {key} is version {manifest.version} on {manifest.base}, but HEAD "
                f"names version {hop.version} on {hop.form.base}"
            )
        return manifest
