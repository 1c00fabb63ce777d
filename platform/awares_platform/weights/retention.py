"""Retention: what of a run's weights stays in the store.

Kept are HEAD's chain, the newest few versions, what is pinned, what a lease names, and every version that these are deltas to. The rest is
first dropped from HEAD, so that nobody begins to read it, and deleted `grace_s` later, for the sake of those who had read HEAD before.

A reader whose download may outlast the grace holds a lease: an object that it writes again every few seconds. Whether a lease lives is
judged by whether it changes, on the collector's monotonic clock: no two clocks are ever compared.
"""

import json
import time
from collections.abc import Callable, Iterable

from awares_platform.errors import NotFound
from awares_platform.store import ObjectStore
from awares_platform.weights.head import Head, Published
from awares_platform.weights.manifest import folder, version_folder

LEASE_S = 60.0


def pin(store: ObjectStore, run: str, version: int) -> None:
    """Keep a version, whatever is published after it."""
    store.put(f"{folder(run)}/pins/{version:08d}", b"")


def unpin(store: ObjectStore, run: str, version: int) -> None:
    """Let retention decide again."""
    store.delete(f"{folder(run)}/pins/{version:08d}")


def pinned(store: ObjectStore, run: str) -> set[int]:
    """The versions that are pinned."""
    return {int(info.key.rpartition("/")[2]) for info in store.list(f"{folder(run)}/pins/")}


def want_anchor(store: ObjectStore, run: str, version: int) -> None:
    """Ask the writer for an anchor: a reader found no undamaged way to `version`."""
    store.put(f"{folder(run)}/wanted/{version:08d}", b"")


def wanted(store: ObjectStore, run: str) -> set[int]:
    """The versions that readers have asked an anchor for."""
    return {int(info.key.rpartition("/")[2]) for info in store.list(f"{folder(run)}/wanted/")}


def answered(store: ObjectStore, run: str) -> None:
    """Forget what was asked for: an anchor is out."""
    store.delete_prefix(f"{folder(run)}/wanted/")


class Collector:
    """Decides what HEAD still names, and deletes what it no longer names. Belongs to the writer: only the holder of HEAD may collect."""

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
        self._store, self._run, self._keep, self._grace_s, self._lease_s, self._clock = (
            store,
            run,
            keep,
            grace_s,
            lease_s,
            clock,
        )
        self._leases: dict[str, tuple[str, float]] = {}
        self._named: set[int] | None = None  # by HEAD, when last looked
        self._dropped: dict[int, float] = {}

    def kept(self, head: Head) -> tuple[Published, ...]:
        """The versions of `head` that are still needed, newest first."""
        roots = [entry.version for entry in head.published[: self._keep]]
        needed = _closure(head, {*roots, *pinned(self._store, self._run), *self._leased()})
        return tuple(entry for entry in head.published if entry.version in needed)

    def collect(self, head: Head) -> list[int]:
        """Delete the versions that HEAD has not named for `grace_s`; returns them. At first also looks for what crashed writers left."""
        named, now, leased = (
            {entry.version for entry in head.published},
            self._clock(),
            self._leased(),
        )
        gone = (self._stored() if self._named is None else self._named) - named
        self._dropped = dict.fromkeys(gone, now) | {
            version: since for version, since in self._dropped.items() if version not in named
        }
        self._named = named
        waited = [
            version for version, since in self._dropped.items() if now - since >= self._grace_s
        ]
        ripe = sorted(
            version for version in waited if version not in leased and version < (head.version or 0)
        )
        for version in ripe:
            self._store.delete_prefix(f"{version_folder(self._run, version)}/")
            del self._dropped[version]
        return ripe

    def _stored(self) -> set[int]:
        """Versions with objects in the store, named by HEAD or not."""
        prefix = f"{folder(self._run)}/v"
        return {
            int(info.key.removeprefix(prefix).partition("/")[0])
            for info in self._store.list(prefix)
        }

    def _leased(self) -> set[int]:
        """Versions that living leases name. Deletes the leases of readers that are gone."""
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
                continue  # the reader has just finished
        self._leases = seen
        return versions


def _closure(head: Head, roots: Iterable[int]) -> set[int]:
    """The roots and every version that a reader without any needs on its way to them."""
    needed: set[int] = set()
    for root in roots:
        needed.add(root)
        needed.update(hop.version for hop in head.path(root) or ())
    return needed
