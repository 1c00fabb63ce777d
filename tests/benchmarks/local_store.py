"""Runs an object store on this machine while a benchmark runs."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from awares_platform.config.store import StoreConfig
from awares_platform.store import ObjectStore, seaweed


@contextmanager
def local_store(directory: Path) -> Iterator[ObjectStore]:
    """Run a SeaweedFS server in `directory`, and yield a client of it.

    The server's credentials become environment variables, which child processes inherit.
    """
    with seaweed.serve(directory / "store", "awares") as server:
        os.environ["AWS_ACCESS_KEY_ID"] = server.access_key
        os.environ["AWS_SECRET_ACCESS_KEY"] = server.secret_key
        settings = StoreConfig(url="s3://awares/benchmark", endpoint=server.endpoint)
        yield ObjectStore.from_config(settings)
