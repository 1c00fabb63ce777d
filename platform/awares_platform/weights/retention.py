"""Decides which versions of a run's weights stay in the store, and deletes the others.

The newest, the pinned and the leased versions stay. If such a version is a delta, the versions that
it builds on stay as well. The writer removes every other version in two steps. First it drops the
version from HEAD, so that readers of the new HEAD do not choose the version. At least `grace_s`
seconds later the writer deletes the version. This delay protects readers of the older HEAD.

A reader whose download may take longer than the grace period holds a lease. A lease is an object
that the reader rewrites every few seconds. The lease expires if it does not change for `lease_s`
seconds. The writer measures this time with its own monotonic clock. The clocks of two machines are
thus never compared.
"""

import json
import time
from collections.abc import Callable, Iterable

from awares_platform.store import ObjectStore
from awares_platform.store.errors import NotFound
from awares_platform.weights.head import Head, PublishedVersion
from awares_platform.weights.manifest import folder, version_folder

LEASE_S = 60.0
"""Seconds without a change after which a lease expires."""


def pin(store: ObjectStore, run: str, version: int) -> None:
    """Keep a version in the store until `unpin` removes the pin."""
    store.put(f"{folder(run)}/pins/{version:08d}", b"")


def unpin(store: ObjectStore, run: str, version: int) -> None:
    """Remove a version's pin."""
    store.delete(f"{folder(run)}/pins/{version:08d}")


def pinned(store: ObjectStore, run: str) -> set[int]:
    """Return the pinned versions."""
    return _listed(store, f"{folder(run)}/pins/")


def request_anchor(store: ObjectStore, run: str, version: int) -> None:
    """Ask the writer to publish all weights of `version` as an anchor.

    A reader calls this function if it cannot reach the version with undamaged anchors and deltas.
    """
    store.put(f"{folder(run)}/wanted/{version:08d}", b"")


def requested_anchors(store: ObjectStore, run: str) -> set[int]:
    """Return the versions for which readers have requested an anchor (all weights)."""
    return _listed(store, f"{folder(run)}/wanted/")


def clear_anchor_requests(store: ObjectStore, run: str) -> None:
    """Delete all requests for anchors. The writer does this after the publication of an anchor."""
    store.delete_prefix(f"{folder(run)}/wanted/")


def _listed(store: ObjectStore, prefix: str) -> set[int]:
    return {int(info.key.rpartition("/")[2]) for info in store.list(prefix)}


class Collector:
    """Decides which versions HEAD names, and deletes the versions that HEAD no longer names.

    Only the current writer of a run may use a collector. `keep` and `grace_s` have the same meaning
    as in `cadence.Cadence`.
    """

    def __init__(
        self,
        store: ObjectStore,
        run: str,
        keep: int,
        grace_s: float,
        *,
        lease_s: float = LEASE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._run, self._keep = store, run, keep
        self._grace_s, self._lease_s, self._clock = grace_s, lease_s, clock
        # Maps the key of each lease to the lease's etag, and to the time when the collector first
        # saw this etag.
        self._leases: dict[str, tuple[str, float]] = {}
        # The versions that HEAD named at the last collection, or None before the first collection.
        self._named: set[int] | None = None
        # Maps each version that HEAD no longer names to the time when `collect` first noticed this.
        self._dropped: dict[int, float] = {}

    def kept(self, head: Head) -> tuple[PublishedVersion, ...]:
        """Return the versions of `head` that must stay in HEAD, newest first."""
        roots = [entry.version for entry in head.published[: self._keep]]
        needed = _closure(head, {*roots, *pinned(self._store, self._run), *self._leased()})
        return tuple(entry for entry in head.published if entry.version in needed)

    def collect(self, head: Head) -> list[int]:
        """Delete the versions that HEAD has not named for `grace_s` seconds.

        Leased versions, and versions newer than those in HEAD, stay. Return the numbers of the
        deleted versions.
        """
        named = {entry.version for entry in head.published}
        now, leased = self._clock(), self._leased()
        gone = (self._stored() if self._named is None else self._named) - named
        self._dropped = dict.fromkeys(gone, now) | {
            version: since for version, since in self._dropped.items() if version not in named
        }
        self._named = named
        due = sorted(
            version
            for version, since in self._dropped.items()
            if now - since >= self._grace_s
            and version not in leased
            and version < (head.version or 0)
        )
        for version in due:
            self._store.delete_prefix(f"{version_folder(self._run, version)}/")
            del self._dropped[version]
        return due

    def _stored(self) -> set[int]:
        """Return the versions that have objects in the store, even if HEAD does not name them."""
        prefix = f"{folder(self._run)}/v"
        return {
            int(info.key.removeprefix(prefix).partition("/")[0])
            for info in self._store.list(prefix)
        }

    def _leased(self) -> set[int]:
        """Return the versions that valid leases name, and delete expired leases."""
        now, seen, versions = self._clock(), {}, set()
        for info in self._store.list(f"{folder(self._run)}/leases/"):
            etag, since = self._leases.get(info.key, ("", now))
            seen[info.key] = (info.etag, since if etag == info.etag else now)
            if now - seen[info.key][1] > self._lease_s:
                self._store.delete(info.key)
                del seen[info.key]
                continue
            try:
                versions.update(json.loads(self._store.get(info.key))["versions"])
            except NotFound:
                continue  # The reader has just finished and deleted its lease.
        self._leases = seen
        return versions


def _closure(head: Head, roots: Iterable[int]) -> set[int]:
    """Return the roots and every version that a new reader must load to reach the roots."""
    needed: set[int] = set()
    for root in roots:
        needed.add(root)
        needed.update(hop.version for hop in head.path(root) or ())
    return needed
