"""Downloads weight shards by parallel range reads, a few shards ahead of the decoder."""

from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

from awares_platform.store import ObjectStore
from awares_platform.store.errors import NotFound
from awares_platform.weights.manifest import WeightsError, version_folder

RANGE_BYTES = 8 << 20
_AHEAD = 2
"""Maximum number of byte ranges that are downloaded while the caller decodes another range."""

Span = tuple[int, int]
"""Two offsets in a weight shard: the first byte to download, and the byte after the last one."""


def fetch_spans(
    store: ObjectStore, run: str, version: int, spans: Mapping[str, Span], connections: int
) -> Iterator[tuple[str, memoryview]]:
    """Yield the name and the downloaded bytes of each weight shard, in the order of `spans`.

    `spans` maps each shard's name to a range of bytes. Raises WeightsError for a damaged shard, and
    StoreError if the store fails.
    """
    folder = version_folder(run, version)
    waiting = deque(spans.items())
    running: deque[tuple[str, list[Future[bytes]]]] = deque()
    with ThreadPoolExecutor(connections, thread_name_prefix="fetch") as pool:
        try:
            while waiting or running:
                while waiting and len(running) <= _AHEAD:
                    shard, span = waiting.popleft()
                    ranges = _start_ranges(pool, store, f"{folder}/{shard}", *span)
                    running.append((shard, ranges))
                shard, ranges = running.popleft()
                yield shard, _join_ranges(ranges, f"run {run}: {folder}/{shard}", *spans[shard])
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _start_ranges(
    pool: ThreadPoolExecutor, store: ObjectStore, key: str, start: int, end: int
) -> list[Future[bytes]]:
    return [
        pool.submit(store.get_range, key, begin, min(begin + RANGE_BYTES, end))
        for begin in range(start, end, RANGE_BYTES)
    ]


def _join_ranges(ranges: list[Future[bytes]], what: str, start: int, end: int) -> memoryview:
    try:
        parts = [future.result() for future in ranges]
    except NotFound as error:
        raise WeightsError(f"{what} is missing") from error
    data = parts[0] if len(parts) == 1 else b"".join(parts)
    if len(data) < end - start:
        raise WeightsError(f"{what} is truncated: {start + len(data)} of {end} bytes")
    return memoryview(data)
