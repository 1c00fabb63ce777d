"""Subscribing: find HEAD, download the cheapest way to a version, decode it, verify every byte, and only then hand it out."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from awares_platform.errors import NotFound
from awares_platform.store import ObjectStore
from awares_platform.weights.assemble import State, assemble, verify
from awares_platform.weights.fetch import fetch
from awares_platform.weights.head import Head, Hop, Published, head_key
from awares_platform.weights.lease import lease
from awares_platform.weights.manifest import Manifest, WeightsError, digest, version_folder
from awares_platform.weights.retention import want_anchor

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Received:
    """A verified version: tensors on the CPU in the manifest's order, how many manifests and bytes led to it, the seconds of waiting for
    bytes, of decoding and of hashing, and how often damage was met on the way.

    Example:
        Received(manifest, {"lm_head.weight": tensor}, hops=1, size=135000, fetch_s=0.04, decode_s=0.01, verify_s=0.01)
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
    """What came out is not what was published, because of `hops`; with none named, of any on the way or of what was held."""

    def __init__(self, reason: str, hops: tuple[Hop, ...] = ()) -> None:
        super().__init__(reason)
        self.hops = hops


class Subscriber:
    """A reader of a run's weights. Picklable; holds no tensors: `receive` builds on what its caller holds. `seen` is HEAD as it was read
    last, by this reader or by one that handed it over.

    Example:
        subscriber = Subscriber(store, "mini")
        held = None
        while (version := subscriber.head()) is not None:
            held = subscriber.receive(version, held)  # deltas, where they are cheaper than an anchor
    """

    def __init__(
        self, store: ObjectStore, run: str, *, connections: int = 4, threads: int = 1
    ) -> None:
        self.store, self.run, self._connections, self._threads = store, run, connections, threads
        self.seen = Head(0)

    def head(self) -> int | None:
        """The newest published version, None before the first: one small request."""
        try:
            self.seen = Head.from_bytes(self.store.get(head_key(self.run)))
        except NotFound:
            return None
        return self.seen.version

    def manifest(self, version: int) -> Manifest:
        """The manifest of a published version, in whichever form, verified against HEAD.

        Raises WeightsError for a version that HEAD does not lead to, or a manifest that does not hash right; the writer is then asked for
        an anchor.
        """
        damage: WeightsError | None = None
        for form in self._find(version).forms:
            try:
                return self._read(Hop(version, form))
            except WeightsError as error:
                damage = damage or error
        raise self._stuck(version, damage) from damage

    def fetch(self, version: int) -> dict[str, Tensor]:
        """All tensors of a version, verified. Raises WeightsError; never returns part of a version."""
        return dict(self.receive(version).state)

    def receive(self, version: int, held: Received | None = None) -> Received:
        """The version, built on what the caller holds or from an anchor, whichever are fewer bytes. What is held stays as it is.

        Memory: the version, and beside it the tensors of the version before where they differ; a few shards. Where bytes turn out
        damaged they are read once more, then another way is tried, first of all without what is held; where there is none, the writer is
        asked for an anchor. Raises WeightsError or StoreError.
        """
        self._find(version)
        avoid: set[Hop] = set()
        damage: _Damaged | None = None
        detours = 0
        while (
            hops := self.seen.path(version, held.manifest.version if held else None, avoid)
        ) is not None:
            try:
                with lease(self.store, self.run, {version, *(hop.version for hop in hops)}):
                    return replace(self.walk(hops, held), detours=detours)
            except _Damaged as error:
                log.warning("%s; trying %s", error, "another way" if damage else "once more")
                detours += 1
                if damage is None:  # the bytes may have been damaged on their way: the same again
                    damage = error
                elif held is not None and not error.hops:
                    held = None
                else:
                    avoid.update(error.hops or hops)
        raise self._stuck(version, damage) from damage

    def walk(self, hops: Sequence[Hop], held: Received | None = None) -> Received:
        """What these hops lead to, from what is held. Only the result is hashed, for it proves everything below it.

        Raises WeightsError or StoreError. `receive` finds the hops, and other ones where these are damaged.
        """
        started, decode_s = time.perf_counter(), 0.0
        manifest, state = (held.manifest, held.state) if held else (None, {})
        for hop in hops:
            try:
                manifest = self._read(hop)
                shards = fetch(self.store, self.run, manifest, self._connections)
                state, seconds = assemble(
                    manifest, {} if hop.form.base is None else state, shards, self._threads
                )
            except WeightsError as error:
                raise _Damaged(f"version {hop.version}: {error}", (hop,)) from error
            decode_s += seconds
        assert manifest is not None, "the way from nothing to a version has a hop"
        fetched = time.perf_counter()
        self._verify(manifest, state, held)
        verify_s, size = time.perf_counter() - fetched, sum(hop.form.size for hop in hops)
        return Received(
            manifest, state, len(hops), size, fetched - started - decode_s, decode_s, verify_s
        )

    def _find(self, version: int) -> Published:
        """The version in HEAD, which is read again if it did not name it when it was seen last. Raises WeightsError."""
        if (published := self.seen.find(version)) is None:
            newest = self.head()
            published = self.seen.find(version)
            if published is None:
                raise WeightsError(
                    f"run {self.run}: version {version} is not published or no longer kept; HEAD is at {newest}: take that one"
                )
        return published

    def _stuck(self, version: int, damage: WeightsError | None) -> WeightsError:
        """Asks the writer for an anchor, and says so."""
        want_anchor(self.store, self.run, version)
        return WeightsError(
            f"{damage or f'run {self.run}: nothing leads to version {version}'}; asked the writer for an anchor"
        )

    def _verify(self, manifest: Manifest, state: State, held: Received | None) -> None:
        try:
            verify(
                manifest,
                state,
                held.manifest if held else None,
                held.state if held else {},
                self._threads,
            )
        except WeightsError as error:
            raise _Damaged(f"run {self.run}: {error}") from error

    def _read(self, hop: Hop) -> Manifest:
        key = f"{version_folder(self.run, hop.version)}/{hop.form.name}"
        try:
            data = self.store.get(key)
        except NotFound as error:
            raise WeightsError(
                f"run {self.run}: version {hop.version} has just been retired; take the newest ({self.head()})"
            ) from error
        if digest(data) != hop.form.digest:
            raise WeightsError(f"run {self.run}: {key} does not hash to what HEAD names")
        manifest = Manifest.from_bytes(data)
        if (manifest.version, manifest.base) != (hop.version, hop.form.base):
            raise WeightsError(
                f"run {self.run}: {key} is of version {manifest.version} on {manifest.base}, not as HEAD says"
            )
        return manifest
