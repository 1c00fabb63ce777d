"""Fixtures: a store that one test uses, a fault proxy in front of that store, and a large file."""

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
    """Return a store whose prefix no other test uses. Its requests do not pass a proxy."""
    return ObjectStore(seaweed.config.model_copy(update={"url": f"s3://awares/{tmp_path.name}"}))


@pytest.fixture
def faults(store: ObjectStore) -> Iterator[Faults]:
    """Yield a running proxy in front of `store`, which holds BODY under "key".

    The retry budget is long, because the machine may be busy.
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
