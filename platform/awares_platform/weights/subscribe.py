"""Downloads a weight version: the deltas and anchors that lead to it with the fewest bytes.

The subscriber returns a version only after it has verified the hashes of every tensor.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from torch import Tensor

from awares_platform.store import ObjectStore
from awares_platform.store.errors import NotFound
from awares_platform.weights.assemble import State, assemble, targets, verify
from awares_platform.weights.fetch import fetch_spans
from awares_platform.weights.head import Head, Hop, PublishedVersion, head_key
from awares_platform.weights.lease import lease
from awares_platform.weights.manifest import Manifest, WeightsError, digest, version_folder
from awares_platform.weights.readers import ALONE, Readers, together
from awares_platform.weights.retention import request_anchor

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Received:
    """A verified version.

    Example:
        state = {"lm_head.weight": tensor}
        Received(manifest, state, 1, 135000, fetch_s=0.04, decode_s=0.01, verify_s=0.01)
    """

    manifest: Manifest
    state: Mapping[str, Tensor]
    """The version's tensors on the CPU, in the manifest's order."""
    hops: int
    """The number of downloaded deltas and anchors."""
    size: int
    """The number of bytes that this process downloaded."""
    fetch_s: float
    """The seconds of waiting for bytes."""
    decode_s: float
    """The seconds of decoding."""
    verify_s: float
    """The seconds of hashing."""
    detours: int = 0
    """The number of attempts that failed because of damaged data."""


class _Damaged(WeightsError):
    """Data of a version is missing, or differs from the published data.

    `hops` lists the damaged downloads. If `hops` is empty, the damage may be in any download or in
    the base version.
    """

    def __init__(self, reason: str, hops: tuple[Hop, ...] = ()) -> None:
        super().__init__(reason)
        self.hops = hops


class Subscriber:
    """A reader of a run's weights. A subscriber holds no tensors, so it can be pickled.

    `seen` is the HEAD that was read last. `threads` is the number of threads that decode.

    Example:
        subscriber = Subscriber(store, "mini")
        held = None
        while (version := subscriber.head()) is not None:
            held = subscriber.receive(version, held)  # loads deltas if an anchor is larger
    """

    def __init__(
        self, store: ObjectStore, run: str, *, connections: int = 4, threads: int = 1
    ) -> None:
        self.store, self.run, self._connections, self._threads = store, run, connections, threads
        self.seen = Head(0)

    def head(self) -> int | None:
        """Read HEAD and return the newest version, or None before the first publication."""
        try:
            self.seen = Head.from_bytes(self.store.get(head_key(self.run)))
        except NotFound:
            return None
        return self.seen.version

    def manifest(self, version: int) -> Manifest:
        """Return a manifest of a published version, verified with its hash in HEAD.

        Raises WeightsError if HEAD does not name the version, or if all its manifests are damaged.
        """
        damage: WeightsError | None = None
        for form in self._find(version).forms:
            try:
                return self._read(Hop(version, form))
            except WeightsError as error:
                damage = damage or error
        raise self._stuck(version, damage) from damage

    def fetch(self, version: int) -> dict[str, Tensor]:
        """Download and verify a version. Return its tensors. Raises the errors of `receive`."""
        return dict(self.receive(version).state)

    def receive(
        self, version: int, held: Received | None = None, readers: Readers = ALONE
    ) -> Received:
        """Download a version as deltas to `held` or from an anchor, whichever takes fewer bytes.

        - `held` is the version that the caller already has, or None.
        - `readers` share the work. All must hold the same version and call this method together.

        After damage, other downloads are tried. If none is left, request an anchor (all weights)
        from the writer and raise WeightsError. Raises StoreError if the store fails.
        """
        together(readers, partial(self._find, version))
        avoid: set[Hop] = set()
        damage: _Damaged | None = None
        detours = 0
        while True:
            hops = self.seen.path(version, held.manifest.version if held else None, avoid)
            if hops is None:
                raise self._stuck(version, damage) from damage
            try:
                with lease(self.store, self.run, {version, *(hop.version for hop in hops)}):
                    return replace(self.walk(hops, held, readers), detours=detours)
            except _Damaged as error:
                log.warning("%s; trying %s", error, "other hops" if damage else "once more")
                detours += 1
                if damage is None:  # Retry the same hops: the network may have damaged the bytes.
                    damage = error
                elif held is not None and not error.hops:
                    held = None
                else:
                    avoid.update(error.hops or hops)

    def walk(
        self, hops: Sequence[Hop], held: Received | None = None, readers: Readers = ALONE
    ) -> Received:
        """Load `hops` in order, starting from `held`. `receive` chooses the hops.

        Only the final version is hashed, because its hashes also verify the intermediate hops.
        Raises WeightsError or StoreError.
        """
        started, decode_s, size = time.perf_counter(), 0.0, 0
        manifest, state = (held.manifest, held.state) if held else (None, {})
        for hop in hops:
            base = {} if hop.form.base is None else state
            try:
                manifest = together(readers, partial(self._read, hop))
                state = targets(manifest, base, readers)
                fetch = partial(
                    fetch_spans, self.store, self.run, hop.version, connections=self._connections
                )
                decode = partial(assemble, manifest, base, state, fetch, self._threads, readers)
                read, seconds = together(readers, decode)
            except WeightsError as error:
                raise _Damaged(f"version {hop.version}: {error}", (hop,)) from error
            size, decode_s = size + read, decode_s + seconds
        assert manifest is not None, "without a held version there is at least one hop"
        decoded = time.perf_counter()
        together(readers, partial(self._verify, manifest, state, held, readers))
        return Received(
            manifest,
            state,
            hops=len(hops),
            size=size,
            fetch_s=decoded - started - decode_s,
            decode_s=decode_s,
            verify_s=time.perf_counter() - decoded,
        )

    def _find(self, version: int) -> PublishedVersion:
        """Return the version's entry in HEAD. If `seen` lacks the version, read HEAD again.

        Raises WeightsError if HEAD does not name the version.
        """
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
        """Request an anchor from the writer, and return an error that reports the request."""
        request_anchor(self.store, self.run, version)
        reason = damage or f"run {self.run}: no published form leads to version {version}"
        return WeightsError(f"{reason}; asked the writer for an anchor")

    def _verify(
        self, manifest: Manifest, state: State, held: Received | None, readers: Readers
    ) -> None:
        known, proven = (held.manifest, held.state) if held else (None, {})
        try:
            verify(manifest, state, known, proven, self._threads, readers)
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
