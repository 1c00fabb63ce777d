"""Tests that ObjectStore retries a request after a fault, or raises an error about the fault."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ReadTimeoutError

from awares_platform.store import ObjectStore, multipart
from awares_platform.store.errors import PreconditionFailed, StoreError, StoreUnavailable
from tests.integration.fault import (
    Fault,
    LostReply,
    Reset,
    ResetAfter,
    Stall,
    Status,
    Throttle,
    Truncate,
)
from tests.integration.fault_proxy import proxy
from tests.integration.fault_rules import Faults
from tests.integration.proxied_object import BODY, statuses

pytestmark = pytest.mark.integration
CUTS = [
    Truncate(0),
    Truncate(50),
    Truncate(0, "honest"),
    Truncate(50, "honest"),
    Truncate(0, "absent"),
    Truncate(50, "absent"),
]


@pytest.mark.parametrize(
    "fault",
    [
        Status(500),
        Status(503),
        Status(429, "TooManyRequestsException"),
        Reset(),
        LostReply(),
        Truncate(9),
    ],
)
def test_two_faults_are_retried(faults: Faults, store: ObjectStore, fault: Fault) -> None:
    faults.on("*/key", "GET", fault=fault, times=2)
    assert faults.store.get("key") == BODY
    assert len(statuses(faults, "GET")) == 3
    if not isinstance(fault, Truncate):
        faults.on("*/key", "PUT", fault=fault, times=2)
        faults.store.put("key", b"new")
        assert store.get("key") == b"new"


def test_a_failed_head_is_retried_although_its_reply_has_no_error_code(faults: Faults) -> None:
    for status in (429, 408, 503):
        faults.on("*/key", "HEAD", fault=Status(status), times=1)
        assert faults.store.exists("key")


def test_a_call_that_is_not_implemented_fails_at_once(faults: Faults) -> None:
    faults.on("*/key", fault=Status(501, "NotImplemented"))
    with pytest.raises(StoreError, match="/key: .* refused the call .*NotImplemented"):
        faults.store.get("key")
    assert statuses(faults, "GET") == [501]


@pytest.mark.parametrize("code", ["XMinioStorageFull", "InsufficientStorage"])
def test_a_full_store_is_named(store: ObjectStore, code: str) -> None:
    with proxy(store, retry_budget_s=2.0) as faults:
        faults.on(method="PUT", fault=Status(507, code))
        with pytest.raises(
            StoreUnavailable, match=f"/key: http://.* is full .*{code}.*; free space there"
        ):
            faults.store.put("key", b"x")
    assert len(faults.requests) > 1


@pytest.mark.parametrize("cut", CUTS, ids=str)
def test_a_cut_listing_is_not_taken_for_a_short_one(faults: Faults, cut: Truncate) -> None:
    faults.on("", "GET", fault=cut, times=1)
    assert [entry.key for entry in faults.store.list("key")] == ["key"]
    assert statuses(faults, "GET") == [200, 200]


@pytest.mark.parametrize("cut", CUTS, ids=str)
def test_a_cut_range_is_read_again(faults: Faults, cut: Truncate) -> None:
    faults.on("*/key", "GET", fault=cut, times=1)
    assert faults.store.get_range("key", 100, 200) == BODY[100:200]
    assert statuses(faults, "GET") == [206, 206]


@pytest.mark.parametrize("cut", [cut for cut in CUTS if cut.length != "honest"], ids=str)
def test_a_cut_object_is_read_again(faults: Faults, cut: Truncate) -> None:
    faults.on("*/key", "GET", fault=cut, times=1)
    assert faults.store.get("key") == BODY
    assert statuses(faults, "GET") == [200, 200]


@pytest.mark.parametrize("cut", CUTS, ids=str)
def test_cut_replies_about_parts_and_deletions_are_retried(
    faults: Faults, store: ObjectStore, large: Path, monkeypatch: pytest.MonkeyPatch, cut: Truncate
) -> None:
    monkeypatch.setattr(multipart, "PART_BYTES", 5 * 2**20)
    faults.on("*/large", "POST", query="uploads*", fault=cut, times=1)
    faults.on("*/large", "POST", query="uploadId=*", fault=cut, times=1)
    faults.on("", "POST", query="delete*", fault=cut, times=1)
    faults.store.upload_file(large, "large", if_none_match=True)
    assert store.head("large").size == large.stat().st_size
    assert faults.store.delete_prefix("large") == 1
    assert not store.exists("large")
    assert [request.key for request in faults.requests if request.method == "POST"].count("") == 2


def test_a_condition_on_an_absent_object_is_not_met_in_one_part_or_in_many(
    faults: Faults, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy answers as AWS S3 does, with 404. SeaweedFS would answer with 412."""
    monkeypatch.setattr(multipart, "PART_BYTES", 5 * 2**20)
    faults.on("*/absent", "PUT", query="", fault=Status(404, "NoSuchKey"))
    faults.on("*/absent", "POST", query="uploadId=*", fault=Status(404, "NoSuchKey"))
    with pytest.raises(PreconditionFailed, match="absent: no such object"):
        faults.store.put("absent", b"x", if_match='"9b2c"')
    with pytest.raises(PreconditionFailed, match="absent: no such object"):
        faults.store.upload_file(large, "absent", if_match='"9b2c"')


def test_a_large_download_retries_cut_parts(
    faults: Faults, store: ObjectStore, large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(multipart, "PART_BYTES", 5 * 2**20)
    store.upload_file(large, "large")
    faults.on("*/large", "GET", fault=ResetAfter(1_000_000), times=1)
    faults.on("*/large", "GET", fault=Truncate(1_000_000, "honest"), times=1)
    faults.store.download_file("large", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == large.read_bytes()
    assert len(statuses(faults, "GET")) == 4


@pytest.mark.parametrize(
    "operation",
    [lambda store: store.get("key"), lambda store: store.put("key", b"x")],
    ids=["get", "put"],
)
def test_a_silent_server_fails_within_the_budget(
    store: ObjectStore, operation: Callable[[ObjectStore], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("awares_platform.store.bucket.SILENCE_S", 1.5)
    with proxy(store, retry_budget_s=1.0) as faults:
        faults.on(fault=Stall())
        started = time.monotonic()
        with pytest.raises(StoreUnavailable, match="/key: http://.* unavailable") as error:
            operation(faults.store)
        assert isinstance(error.value.__cause__, ReadTimeoutError)
        assert 1.5 < time.monotonic() - started < 10
    assert len(faults.requests) == 1


def test_one_silence_is_retried(faults: Faults, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("awares_platform.store.bucket.SILENCE_S", 1.0)
    faults.on(fault=Stall(), times=1)
    assert faults.store.get("key") == BODY
    assert statuses(faults, "GET") == [0, 200]


def test_a_slow_reply_is_not_taken_for_silence(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reply takes longer than SILENCE_S, but its bytes keep arriving.

    ObjectStore must therefore not send a second request.
    """
    monkeypatch.setattr("awares_platform.store.bucket.SILENCE_S", 1.0)
    store.put("key", BODY)
    with proxy(store, retry_budget_s=0.5) as faults:
        faults.on(fault=Throttle(len(BODY) / 2.5))
        assert faults.store.get("key") == BODY
    assert len(faults.requests) == 1
