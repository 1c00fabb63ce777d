"""Holds a lease on the versions that a reader downloads.

A lease is an object in the store that asks the writer to keep these versions. retention.py decides
when a lease expires.
"""

import json
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from itertools import count
from uuid import uuid4

from awares.errors import AwaresError
from awares_platform.store import ObjectStore
from awares_platform.weights.manifest import folder

BEAT_S = 10.0


@contextmanager
def lease(
    store: ObjectStore, run: str, versions: Collection[int], beat_s: float = BEAT_S
) -> Iterator[None]:
    """Keep `versions` in the store while the `with` block runs.

    A thread writes the lease after `beat_s` seconds, and again every `beat_s` seconds. Before that,
    the block needs no lease, because the writer waits before it deletes versions.
    """
    key, done = f"{folder(run)}/leases/{uuid4().hex}", threading.Event()

    def beat() -> None:
        for number in count():
            if done.wait(beat_s):
                if number:
                    store.delete(key)
                return
            try:
                store.put(key, json.dumps({"versions": sorted(versions), "beat": number}).encode())
            except AwaresError:
                continue  # If the store stays down, the download raises the error.

    thread = threading.Thread(target=beat, name="weights-lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
