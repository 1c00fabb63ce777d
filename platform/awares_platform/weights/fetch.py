"""Downloads weight shards with parallel range reads, a few shards ahead of the decoder."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from awares_platform.store import ObjectStore
from awares_platform.store.errors import NotFound
from awares_platform.weights.manifest import Manifest, WeightsError, version_folder

RANGE_BYTES = 8 << 20
_AHEAD = 2
"""Number of shards that are downloaded while one shard is decoded."""


def fetch_shards(
    store: ObjectStore, run: str, manifest: Manifest, connections: int
) -> Iterator[tuple[str, memoryview]]:
    """Yield the name and the bytes of each shard, in the manifest's order.

    At most three shards are in memory at once. Raises WeightsError for a shard that is missing or
    truncated, and StoreError if the store fails.
    """
    folder = version_folder(run, manifest.version)
    waiting = deque(manifest.shards.items())
    running: deque[tuple[str, list[Future[bytes]]]] = deque()
    with ThreadPoolExecutor(connections, thread_name_prefix="fetch") as pool:
        try:
            while waiting or running:
                while waiting and len(running) <= _AHEAD:
                    shard, length = waiting.popleft()
                    ranges = _start_ranges(pool, store, f"{folder}/{shard}", length)
                    running.append((shard, ranges))
                shard, ranges = running.popleft()
                what = f"run {run}: {folder}/{shard}"
                yield shard, _join_ranges(ranges, what, manifest.shards[shard])
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _start_ranges(
    pool: ThreadPoolExecutor, store: ObjectStore, key: str, length: int
) -> list[Future[bytes]]:
    return [
        pool.submit(store.get_range, key, start, min(start + RANGE_BYTES, length))
        for start in range(0, length, RANGE_BYTES)
    ]


def _join_ranges(ranges: list[Future[bytes]], what: str, length: int) -> memoryview:
    try:
        parts = [future.result() for future in ranges]
    except NotFound as error:
        raise WeightsError(f"{what} is missing") from error
    data = parts[0] if len(parts) == 1 else b"".join(parts)
    if len(data) < length:
        raise WeightsError(f"{what} is truncated: {len(data)} of {length} bytes")
    return memoryview(data)
