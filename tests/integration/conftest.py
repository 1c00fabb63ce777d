"""Provides fixtures: a store for each test, a proxy that injects faults, and a large file."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from awares_platform.store import ObjectStore, multipart
from tests.integration.fault_proxy import proxy
from tests.integration.fault_rules import Faults
from tests.integration.proxied_object import BODY


@pytest.fixture
def store(seaweed: ObjectStore, tmp_path: Path) -> ObjectStore:
    """Return a client of the real store, without a proxy. Each test has its own key prefix."""
    return ObjectStore(seaweed.config.model_copy(update={"url": f"s3://awares/{tmp_path.name}"}))


@pytest.fixture
def faults(store: ObjectStore) -> Iterator[Faults]:
    """Store BODY under the key "key", and yield a running proxy in front of `store`.

    The client retries for up to 60 seconds, because a busy machine may answer slowly.
    """
    store.put("key", BODY)
    with proxy(store, retry_budget_s=60.0) as running:
        yield running


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """Return a file that an upload splits into two parts."""
    path = tmp_path / "large.bin"
    path.write_bytes(os.urandom(multipart.PART_BYTES + 12_345))
    return path
