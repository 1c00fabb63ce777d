"""Shards from the store: parallel range reads, a few shards ahead of whoever decodes them."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from awares_platform.errors import NotFound
from awares_platform.store import ObjectStore
from awares_platform.weights.manifest import Manifest, WeightsError, version_folder

RANGE_BYTES = 8 << 20
_AHEAD = 2  # shards that are downloaded while one is decoded


def fetch(
    store: ObjectStore, run: str, manifest: Manifest, connections: int
) -> Iterator[tuple[str, memoryview]]:
    """Each shard of the manifest with its bytes, in order. Holds at most three of them.

    Raises WeightsError for one that is missing or truncated, StoreError when the store fails.
    """
    where, waiting = version_folder(run, manifest.version), deque(manifest.shards.items())
    running: deque[tuple[str, list[Future[bytes]]]] = deque()
    with ThreadPoolExecutor(connections, thread_name_prefix="fetch") as pool:
        try:
            while waiting or running:
                while waiting and len(running) <= _AHEAD:
                    shard, length = waiting.popleft()
                    ranges = [
                        (start, min(start + RANGE_BYTES, length))
                        for start in range(0, length, RANGE_BYTES)
                    ]
                    running.append(
                        (
                            shard,
                            [
                                pool.submit(store.get_range, f"{where}/{shard}", *span)
                                for span in ranges
                            ],
                        )
                    )
                shard, futures = running.popleft()
                yield shard, _joined(futures, f"run {run}: {where}/{shard}", manifest.shards[shard])
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _joined(futures: list[Future[bytes]], what: str, length: int) -> memoryview:
    try:
        parts = [future.result() for future in futures]
    except NotFound as error:
        raise WeightsError(f"{what} is missing") from error
    data = parts[0] if len(parts) == 1 else b"".join(parts)
    if len(data) < length:
        raise WeightsError(f"{what} is truncated: {len(data)} of {length} bytes")
    return memoryview(data)
