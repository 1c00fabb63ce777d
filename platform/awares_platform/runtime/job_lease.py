"""Lets only one job at a time write the same part of the store.

    runs/<run>/<job>/lease.json        held by sft, grpo and evaluate
    datasets/<curated>/lease.json      held by curate, because all runs share the curated data set
    quickstarts/<run>/lease.json       held by a quickstart, which may delete all objects of the run
    runs/<run>/serve/<id>/lease.json   held by one endpoint; a run may have many endpoints

A thread of the holder rewrites the lease every BEAT_S seconds. Such a write is called a beat. It
fails if another job has written the lease since the last beat. Another job that finds the lease
watches it, and acts as follows:

    the lease changes                                    the holder works: refuse to run
    the holder ran in this PID namespace, and is gone    take the lease over at once
    the lease does not change for EXPIRY_S seconds       take the lease over

The watching job measures these seconds with its own monotonic clock, so the clocks of two machines
are never compared. A holder that has lost its lease stops its job, and names the new holder. Each
write is conditional, so two jobs can never take over the same lease.
"""

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from uuid import uuid4

from awares.errors import AwaresError, Fenced
from awares_platform.runtime.lease_holder import LeaseHolder
from awares_platform.runtime.progress import Progress
from awares_platform.store import ObjectStore
from awares_platform.store.conditions import ignored_conditions
from awares_platform.store.errors import NotFound, PreconditionFailed, StoreError

log = logging.getLogger(__name__)

BEAT_S = 5.0
EXPIRY_S = 30.0
_POLL_S = 0.5
_BEAT_BUDGET_S = 5.0
"""The time limit in seconds for the retries of one beat."""


class JobRefused(AwaresError):
    """Another job works on the same part of the store."""


class JobFenced(Fenced):
    """Another job has taken over the part of the store on which this job works."""


@dataclass(frozen=True, slots=True)
class LeaseClaim:
    """The key and token with which a process of a job checks that the job still holds its lease.

    Example:
        LeaseClaim("runs/mini/grpo/lease.json", "9f2c...")
    """

    key: str
    token: str


def run_lease(run: str, job: str) -> str:
    """Return the key of the lease on one job of a run."""
    return f"runs/{run}/{job}/lease.json"


def serve_lease(run: str) -> str:
    """Return the key of a lease for a new endpoint of a run. No other endpoint has the same key."""
    return f"{_serve_prefix(run)}{uuid4().hex[:8]}/lease.json"


def serve_leases(store: ObjectStore, run: str) -> list[str]:
    """Return the keys of the leases of all endpoints of a run, including killed endpoints."""
    keys = (info.key for info in store.list(_serve_prefix(run)))
    return [key for key in keys if key.endswith("/lease.json")]


def _serve_prefix(run: str) -> str:
    return f"runs/{run}/serve/"


def dataset_lease(name: str) -> str:
    """Return the key of the lease on a data set."""
    return f"datasets/{name}/lease.json"


@contextlib.contextmanager
def hold(
    store: ObjectStore,
    key: str,
    job: str,
    rename: str = "run.name",
    *,
    beat_s: float = BEAT_S,
    expiry_s: float = EXPIRY_S,
) -> Iterator[LeaseClaim]:
    """Hold the lease `key` while the block runs.

    `rename` is the setting to change for a job in another part of the store. `expiry_s` must be
    several times `beat_s`.

    Raises JobRefused if another job holds the lease, and StoreError if the store ignores
    conditional writes. If another job takes the lease over, the process gets SIGTERM, whose handler
    must end the block. The function then raises JobFenced.
    """
    holder, beats = LeaseHolder.here(job), _for_beats(store)
    _require_conditions(store, key, holder)
    etag = _acquire(store, key, holder, rename, expiry_s)
    keeper = _Keeper(beats, key, holder, etag, beat_s)
    try:
        try:
            yield LeaseClaim(key, holder.token)
        finally:
            keeper.stop()
    except BaseException as error:
        if keeper.fenced is not None:
            raise keeper.fenced from error
        raise
    if keeper.fenced is not None:
        raise keeper.fenced


def require_held(store: ObjectStore, claim: LeaseClaim) -> None:
    """Raise JobFenced unless the job with this claim still holds its lease."""
    found = _read(store, claim.key)
    other = found and LeaseHolder.from_bytes(found[0])
    if not (other and other.token == claim.token):
        raise _fenced(store, claim.key, other)


def _for_beats(store: ObjectStore) -> ObjectStore:
    """Return a copy of the store that retries a write for at most _BEAT_BUDGET_S seconds.

    The copy already has an S3 client, because creating a client can take seconds and delay a beat.
    """
    beats = store.hurried(_BEAT_BUDGET_S)
    _ = beats.client
    return beats


def _acquire(
    store: ObjectStore, key: str, holder: LeaseHolder, rename: str, expiry_s: float
) -> str:
    """Wait until the lease is free, write it, and return its etag.

    Raises JobRefused if the present holder renews its lease during the wait.
    """
    say, seen, since = Progress(holder.job).say, None, 0.0
    while True:
        asked = time.monotonic()
        found, now = _read(store, key), time.monotonic()
        with contextlib.suppress(PreconditionFailed):
            if found is None:
                return store.put(key, holder.to_bytes(0), if_none_match=True)
            other, etag = LeaseHolder.from_bytes(found[0]), found[1]
            if seen not in (None, etag) and other:
                raise _refused(store, key, other, rename)
            gone, told = bool(other and other.is_gone()), seen is not None
            # If this read was slow, the holder's beats may be slow, too. Wait `expiry_s` again.
            if seen != etag or now - asked > expiry_s / 2:
                seen, since = etag, now
            if gone or now - since >= expiry_s:
                why = "its process is gone" if gone else f"it is silent for {expiry_s:g} s"
                say(f"taking over from {_named(other)}: {why}")
                return store.put(key, holder.to_bytes(0), if_match=etag)
            if not told:
                say(f"waiting up to {expiry_s:g} s for a sign of life of {_named(other)}")
        time.sleep(min(_POLL_S, expiry_s / 10))


def _require_conditions(store: ObjectStore, key: str, holder: LeaseHolder) -> None:
    """Raise StoreError if the store ignores the conditions of writes.

    The check writes an object of its own beside the lease, and deletes it.
    """
    beside = f"{PurePosixPath(key).parent}/check-{holder.token}"
    store.put(beside, b"1")
    try:
        ignored = ignored_conditions(store, beside, b"2")
    finally:
        with contextlib.suppress(StoreError):
            store.delete(beside)
    if ignored:
        raise StoreError(
            f"{_place(store, key)}: {store.config.endpoint or 'AWS S3'} ignores "
            f"{' and '.join(ignored)}, so two jobs could overwrite each other's results; use an S3 "
            "server with conditional writes"
        )


def _read(store: ObjectStore, key: str) -> tuple[bytes, str] | None:
    try:
        return store.get_with_etag(key)
    except NotFound:
        return None


def _named(other: LeaseHolder | None) -> str:
    return str(other) if other else "an unknown job"


def _place(store: ObjectStore, key: str) -> str:
    return f"{store.config.url}/{PurePosixPath(key).parent}"


def _refused(store: ObjectStore, key: str, other: LeaseHolder, rename: str) -> JobRefused:
    return JobRefused(
        f"{_place(store, key)} is in use by {other}: wait until that job has ended, or stop it, "
        f"or set another {rename}"
    )


def _fenced(store: ObjectStore, key: str, other: LeaseHolder | None) -> JobFenced:
    place = _place(store, key)
    if other is None:
        return JobFenced(
            f"{place}: this job has stopped, because its lease.json is deleted or damaged; "
            "run the job again"
        )
    return JobFenced(f"{place}: this job has stopped, because {other} has taken it over")


class _Keeper:
    """Renews a lease in a thread, and sends SIGTERM to its own process if the lease is lost.

    `fenced` is None while the lease is held. After the loss, it is the error to raise.
    """

    def __init__(
        self, store: ObjectStore, key: str, holder: LeaseHolder, etag: str, beat_s: float
    ) -> None:
        self._store = store
        self._key, self._holder, self._etag, self._beat_s = key, holder, etag, beat_s
        self._beats, self._silent = 0, False
        self._done = threading.Event()
        self.fenced: JobFenced | None = None
        self._thread = threading.Thread(target=self._keep, name="job-lease", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread, and delete the lease if it is still held.

        A last beat just before the deletion shows other jobs that the holder works. No other job
        therefore takes the lease over at this moment.
        """
        self._done.set()
        self._thread.join()
        if self.fenced is None and self._renew():
            with contextlib.suppress(StoreError):
                self._store.delete(self._key)

    def _keep(self) -> None:
        while self.fenced is None and not self._done.wait(self._beat_s):
            self._renew()
        if self.fenced is not None and not self._done.is_set():
            # Without a handler, SIGTERM would end this process before it stops the job's actors.
            if callable(signal.getsignal(signal.SIGTERM)):
                os.kill(os.getpid(), signal.SIGTERM)
            else:
                log.error("%s", self.fenced)

    def _renew(self) -> bool:
        """Write the next beat, and return whether the lease is certainly still held."""
        self._beats += 1
        data = self._holder.to_bytes(self._beats)
        try:
            self._etag = self._store.put(self._key, data, if_match=self._etag)
            self._silent = False
            return True
        except PreconditionFailed:
            return self._look()
        except StoreError as error:
            # The next beat tries again. Until then, another job could take the lease over.
            if not self._silent:
                log.warning("the lease of this job is not renewed: %s", error)
            self._silent = True
            return False

    def _look(self) -> bool:
        """Find out who has written the lease, and return whether it was this holder.

        If the store's reply to a beat was lost, the last write may be this holder's own.
        """
        try:
            found = _read(self._store, self._key)
        except StoreError:
            return False
        other = found and LeaseHolder.from_bytes(found[0])
        if found and other and other.token == self._holder.token:
            self._etag = found[1]
            return True
        self.fenced = _fenced(self._store, self._key, other)
        return False
