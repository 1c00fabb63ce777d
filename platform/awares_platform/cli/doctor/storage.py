"""Checks the object store: round trips, conditional writes, bandwidth and request rates.

All checks of one run of the doctor write below one prefix, which `clean` deletes.
"""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from statistics import median

from awares_platform.cli.doctor.finding import Finding
from awares_platform.config.store import StoreConfig
from awares_platform.store import ObjectStore
from awares_platform.store.conditions import ignored_conditions
from awares_platform.store.errors import StoreError

ROUND_TRIP, CONDITIONS, RATES, CLEAN = "store", "conditional writes", "store rates", "clean-up"
REMEDY = (
    "Check store.url, store.endpoint, the credentials in the environment, and the network policy."
)
FASTER = (
    "Put the bucket and the nodes into one region, or use a faster store, because every version of "
    "the weights passes through it."
)
BY_HAND = "Delete the objects below probes/doctor- in the store by hand."
LOWEST_MB_PER_S = 20.0
LOWEST_REQUESTS_PER_S = 20.0
_RETRY_S = 10.0
_LARGE, _MOST, _STREAMS = 4 << 20, 64, 4
"""The bandwidth test's object size in bytes, maximum transfers per thread, and thread count."""
_THREADS = 8
_MEASURED_S = 1.5
TWO_WRITERS = (
    "Use an S3 server that supports conditional writes, because two learners could otherwise "
    "overwrite each other's versions."
)


def patient(config: StoreConfig, prefix: str) -> ObjectStore:
    """Return a client for keys below `prefix`. The client retries a call for at most 10 seconds."""
    store = ObjectStore.from_config(config.model_copy(update={"url": f"{config.url}/{prefix}"}))
    return store.hurried(_RETRY_S)


def round_trip(store: ObjectStore) -> list[Finding]:
    """Write an object, and read, list and delete it. Raises StoreError if a call fails."""
    key, data = "round-trip", os.urandom(4096)
    store.put(key, data)
    if store.get(key) != data or store.get_range(key, 5, 9) != data[5:9]:
        found = "the store returned other bytes than were written"
        return [Finding(ROUND_TRIP, "fail", found, "Check which server answers store.endpoint.")]
    if key not in [info.key for info in store.list(key)]:
        found, remedy = (
            "an object is missing in the listing",
            "Use an S3 server that lists at once.",
        )
        return [Finding(ROUND_TRIP, "fail", found, remedy)]
    store.delete(key)
    if store.exists(key):
        found = "an object is still there after its deletion"
        remedy = "Let the credentials delete objects below store.url."
        return [Finding(ROUND_TRIP, "fail", found, remedy)]
    return [Finding(ROUND_TRIP, "pass", f"wrote, read, listed and deleted in {store.config.url}")]


def conditional_writes(store: ObjectStore) -> list[Finding]:
    """Check that a write fails exactly if its If-None-Match or If-Match condition is not met."""
    key = "HEAD"
    first = store.put(key, b"1", if_none_match=True)
    second = store.put(key, b"2", if_match=first)
    if ignored := ignored_conditions(store, key, b"3", stale=first):
        found = f"the store ignores {' and '.join(ignored)}"
        return [Finding(CONDITIONS, "fail", found, TWO_WRITERS)]
    if store.get_with_etag(key) != (b"2", second):
        return [Finding(CONDITIONS, "fail", "a refused write changed the object", TWO_WRITERS)]
    return [Finding(CONDITIONS, "pass", "If-None-Match and If-Match stop a second writer")]


def rates(store: ObjectStore) -> list[Finding]:
    """Measure the store's bandwidth and request rates, each for about 1.5 seconds."""
    metrics = {
        "put_mb_per_s": _bandwidth(lambda key, data: store.put(key, data)),
        "get_mb_per_s": _bandwidth(lambda key, data: store.get(key)),
        **_requests(store),
        "lists_per_s": _lists(store),
        "conditional_puts_per_s": _conditional_puts(store),
    }
    found = (
        f"put {metrics['put_mb_per_s']:.0f} MB/s, get {metrics['get_mb_per_s']:.0f} MB/s, "
        f"{metrics['requests_per_s']:.0f} requests/s, {metrics['lists_per_s']:.0f} lists/s, "
        f"{metrics['conditional_puts_per_s']:.0f} conditional puts/s"
    )
    slow = min(metrics["put_mb_per_s"], metrics["get_mb_per_s"]) < LOWEST_MB_PER_S
    rare = min(metrics["requests_per_s"], metrics["lists_per_s"]) < LOWEST_REQUESTS_PER_S
    if not (slow or rare):
        return [Finding(RATES, "pass", found, metrics=metrics)]
    return [Finding(RATES, "warn", found, FASTER, metrics=metrics)]


def _bandwidth(transfer: Callable[[str, bytes], object]) -> float:
    """Return the total MB/s of four threads.

    For about 1.5 seconds, each thread transfers an object of 4 MiB up to 64 times.
    """
    data, end = os.urandom(_LARGE), time.perf_counter() + _MEASURED_S

    def move(thread: int) -> int:
        count = 0
        while not count or (count < _MOST and time.perf_counter() < end):
            transfer(f"large-{thread}", data)
            count += 1
        return count

    started = time.perf_counter()
    with ThreadPoolExecutor(_STREAMS) as pool:
        count = sum(pool.map(move, range(_STREAMS)))
    return count * _LARGE / 1e6 / (time.perf_counter() - started)


def _requests(store: ObjectStore) -> dict[str, float]:
    """Return the rate and the median latency of small writes from eight threads."""

    def write(thread: int) -> list[float]:
        times, end = [], time.perf_counter() + _MEASURED_S
        while (started := time.perf_counter()) < end:
            store.put(f"small-{thread}-{len(times)}", b"awares")
            times.append(time.perf_counter() - started)
        return times

    started = time.perf_counter()
    with ThreadPoolExecutor(_THREADS) as pool:
        times = [seconds for each in pool.map(write, range(_THREADS)) for seconds in each]
    rate = len(times) / (time.perf_counter() - started)
    return {"requests_per_s": rate, "request_p50_s": median(times)}


def _lists(store: ObjectStore) -> float:
    """Return how often per second one reader lists the large objects."""
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < _MEASURED_S:
        count += 1
        list(store.list("large-"))
    return count / (time.perf_counter() - started)


def _conditional_puts(store: ObjectStore) -> float:
    """Return how often per second one writer replaces an object under If-Match."""
    etag, count, started = store.put("replaced", b"0"), 0, time.perf_counter()
    while time.perf_counter() - started < _MEASURED_S:
        count += 1
        etag = store.put("replaced", str(count).encode(), if_match=etag)
    return count / (time.perf_counter() - started)


def clean(config: StoreConfig, prefix: str) -> list[Finding]:
    """Delete all objects below `prefix`."""
    try:
        deleted = ObjectStore.from_config(config).hurried(_RETRY_S).delete_prefix(f"{prefix}/")
    except StoreError as error:
        return [Finding(CLEAN, "warn", str(error), BY_HAND)]
    return [Finding(CLEAN, "pass", f"deleted the {deleted} objects of this visit")]
