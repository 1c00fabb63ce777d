"""Runs a reverse proxy that injects faults into the requests from boto3 to a real S3 server.

    ObjectStore -- boto3 --> proxy --> SeaweedFS

The proxy keeps the Host header of each request, because the SigV4 signature covers this header.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from awares_platform.store import ObjectStore
from tests.integration.fault_rules import Faults
from tests.integration.fault_server import Server


@contextmanager
def proxy(store: ObjectStore, retry_budget_s: float = 5.0) -> Iterator[Faults]:
    """Run a proxy in front of the server of `store`, and yield the proxy's Faults.

    The client `Faults.store` sends its requests through the proxy.

    Example:
        with proxy(store) as faults:
            faults.on("*/v00000003/*.bin", "GET", fault=Status(500), times=3)
            faults.store.get("v00000003/a.bin")
    """
    faults = Faults(store.config.endpoint or "", store.config.bucket)
    with Server(faults) as server:
        endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        faults.store = ObjectStore(
            store.config.model_copy(update={"endpoint": endpoint, "retry_budget_s": retry_budget_s})
        )
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield faults
        finally:
            faults.closing.set()
            faults.clear()
            server.shutdown()
            thread.join()
            server.disconnect()
