"""The fault proxy in front of a real SeaweedFS.

It changes nothing without a rule, and every fault happens. ObjectStore handles each of them.
"""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    ReadTimeoutError,
    ResponseStreamingError,
)

from awares_platform.config.store import StoreConfig
from awares_platform.store import ObjectStore, multipart, seaweed
from awares_platform.store.errors import NotFound, PreconditionFailed, StoreError, StoreUnavailable
from tests.integration.fault import (
    Call,
    Delay,
    Fault,
    Flip,
    LostReply,
    Reset,
    ResetAfter,
    Stall,
    Status,
    Throttle,
    Truncate,
)
from tests.integration.fault_proxy import Faults, Request, proxy

pytestmark = pytest.mark.integration
BODY = bytes(range(256)) * 4
CUTS = [
    Truncate(0),
    Truncate(50),
    Truncate(0, "honest"),
    Truncate(50, "honest"),
    Truncate(0, "absent"),
    Truncate(50, "absent"),
]


@pytest.fixture
def store(seaweed: ObjectStore, request: pytest.FixtureRequest) -> ObjectStore:
    """A prefix for one test alone, on the server without the proxy."""
    return ObjectStore(
        seaweed.config.model_copy(update={"url": f"s3://awares/{request.node.originalname}"})
    )


@pytest.fixture
def faults(store: ObjectStore) -> Iterator[Faults]:
    """A proxy in front of `store`, with BODY under "key"; retries may be slow on a busy machine."""
    store.put("key", BODY)
    with proxy(store, retry_budget_s=60.0) as running:
        yield running


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A file of two parts."""
    path = tmp_path / "large.bin"
    path.write_bytes(os.urandom(multipart.PART_BYTES + 12_345))
    return path


def raw_get(faults: Faults, **request: str) -> bytes:
    """One attempt of boto3 to read "key"."""
    return faults.store.client.get_object(**faults.store.address("key"), **request)["Body"].read()


def statuses(faults: Faults, method: str) -> list[int]:
    return [request.status for request in faults.requests if request.method == method]


def test_without_a_rule_objects_pass_unchanged(faults: Faults, store: ObjectStore) -> None:
    through = faults.store
    etag = through.put("a b/ü+", BODY, if_none_match=True)
    assert store.get_with_etag("a b/ü+") == through.get_with_etag("a b/ü+") == (BODY, etag)
    assert through.get_range("a b/ü+", 10, 20) == BODY[10:20]
    assert through.get_range("a b/ü+", 5000, 5001) == b""
    assert through.head("a b/ü+") == store.head("a b/ü+")
    assert through.put("empty", b"") and through.get("empty") == b""
    assert [*through.list()] == [*store.list()]
    with pytest.raises(PreconditionFailed):
        through.put("a b/ü+", b"x", if_none_match=True)
    newer = through.put("a b/ü+", b"x", if_match=etag)
    with pytest.raises(PreconditionFailed):
        through.get_range("a b/ü+", 0, 1, if_match=etag)
    assert store.get_with_etag("a b/ü+") == (b"x", newer)
    with pytest.raises(NotFound):
        through.get("absent")
    assert through.delete_prefix("a b/") == 1 and not store.exists("a b/ü+")
    through.delete("empty")
    assert not store.exists("empty")


def test_without_a_rule_large_files_pass_in_parts(
    faults: Faults, store: ObjectStore, large: Path, tmp_path: Path
) -> None:
    faults.store.upload_file(large, "large")
    faults.store.download_file("large", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == large.read_bytes()
    size = large.stat().st_size
    assert sum(request.bytes_in for request in faults.requests if request.method == "PUT") == size
    assert sum(request.bytes_out for request in faults.requests if request.method == "GET") == size
    assert raw_get(faults) == BODY


def test_requests_are_noted_in_order_with_what_passed(faults: Faults) -> None:
    faults.store.put("key", b"12345")
    faults.store.get_range("key", 1, 3)
    with pytest.raises(NotFound):
        faults.store.head("absent")
    prefix = faults.store.config.prefix
    assert faults.requests[:3] == [
        Request("PUT", f"{prefix}/key", 200, 5, 0),
        Request("GET", f"{prefix}/key", 206, 0, 2),
        Request("HEAD", f"{prefix}/absent", 404, 0, 0),
    ]
    # After a 404 the store asks whether the bucket exists.
    further = [(request.method, request.key, request.status) for request in faults.requests[3:]]
    assert further == [("GET", "", 200)]


def test_connections_are_kept_and_run_side_by_side(faults: Faults) -> None:
    faults.on("*/slow", fault=Delay(1.0))
    faults.store.put("other", b"x")
    started = time.monotonic()
    with ThreadPoolExecutor(9) as pool:
        slow = pool.submit(faults.store.put, "slow", b"x")
        assert list(pool.map(lambda _: faults.store.get("other"), range(64))) == [b"x"] * 64
        assert not slow.done()
        slow.result()
    assert time.monotonic() - started >= 1.0


def test_a_chunked_request_passes(faults: Faults, store: ObjectStore) -> None:
    """boto3 sends a stream of unknown length like this, and signs only its headers."""
    url = faults.store.client.generate_presigned_url(
        "put_object", Params=faults.store.address("chunked")
    )
    host, target = url.removeprefix("http://").split("/", 1)
    name, port = host.split(":")
    with socket.create_connection((name, int(port))) as connection:
        head = f"PUT /{target} HTTP/1.1\r\nHost: {host}\r\n"
        head += "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode() + b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n")
        reply = connection.makefile("rb").read()
    assert reply.startswith(b"HTTP/1.1 200")
    assert store.get("chunked") == b"hello world"


def test_rules_fit_by_key_method_query_and_times(faults: Faults) -> None:
    faults.on("*/key", "GET", fault=Status(404), times=1)
    faults.on("?*", "GET", fault=Status(412), times=1)
    faults.on("", "GET", query="*prefix=*listed*", fault=Status(404), times=1)
    assert faults.store.head("key").size == len(BODY)
    with pytest.raises(NotFound):
        faults.store.get("key")
    with pytest.raises(PreconditionFailed):
        faults.store.get("key")
    assert faults.store.get("key") == BODY
    assert [entry.key for entry in faults.store.list("key")] == ["key"]
    with pytest.raises(NotFound):
        list(faults.store.list("listed"))
    faults.on(fault=Status(404))
    for _ in range(3):
        with pytest.raises(NotFound):
            faults.store.get("key")
    faults.clear()
    assert faults.store.get("key") == BODY


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (Status(500), "InternalError"),
        (Status(503), "SlowDown"),
        (Status(409, "OperationAborted"), "OperationAborted"),
    ],
)
def test_a_status_has_s3s_code(
    faults: Faults, store: ObjectStore, fault: Status, code: str
) -> None:
    faults.on("*/key", fault=fault)
    with pytest.raises(ClientError) as error:
        raw_get(faults)
    assert error.value.response["Error"]["Code"] == code
    with pytest.raises(ClientError):
        faults.store.client.put_object(**faults.store.address("key"), Body=b"x" * 1_000_000)
    with pytest.raises(ClientError, match=str(fault.status)):
        faults.store.client.head_object(**faults.store.address("key"))
    assert statuses(faults, "PUT") == statuses(faults, "HEAD") == [fault.status]
    assert store.get("key") == BODY


@pytest.mark.parametrize(
    ("fault", "failure"),
    [
        (Reset(), ConnectionClosedError),
        (LostReply(), ConnectionClosedError),
        (ResetAfter(100), ResponseStreamingError),
        (Truncate(100), ResponseStreamingError),
    ],
)
def test_a_cut_connection_is_an_error_to_boto3(
    faults: Faults, fault: Fault, failure: type[Exception]
) -> None:
    faults.on("*/key", "GET", fault=fault, times=1)
    with pytest.raises(failure):
        raw_get(faults)
    assert raw_get(faults) == BODY


def test_a_reset_request_never_arrives_and_a_lost_reply_did_its_work(
    faults: Faults, store: ObjectStore
) -> None:
    faults.on("*/reset", "PUT", fault=Reset())
    faults.on("*/lost", "PUT", fault=LostReply())
    for key in ("reset", "lost"):
        with pytest.raises(ConnectionClosedError):
            faults.store.client.put_object(**faults.store.address(key), Body=b"x")
    assert not store.exists("reset") and store.get("lost") == b"x"
    assert statuses(faults, "PUT") == [0, 0]


def test_a_byte_is_flipped(faults: Faults) -> None:
    faults.on("*/key", fault=Flip(700))
    assert raw_get(faults) == BODY[:700] + bytes([BODY[700] ^ 0xFF]) + BODY[701:]
    assert raw_get(faults, Range="bytes=0-99") == BODY[:100]


def test_a_delayed_request_takes_its_time(faults: Faults) -> None:
    faults.on("*/key", fault=Delay(0.5), times=1)
    started = time.monotonic()
    assert raw_get(faults) == BODY
    assert time.monotonic() - started >= 0.5


def test_a_throttled_body_is_no_faster_than_the_rate(faults: Faults, store: ObjectStore) -> None:
    data = os.urandom(300_000)
    faults.on("*/slow", fault=Throttle(200_000))
    for operation in (lambda: faults.store.put("slow", data), lambda: faults.store.get("slow")):
        started = time.monotonic()
        operation()
        assert len(data) / (time.monotonic() - started) < 210_000
    assert store.get("slow") == data


def test_a_stalled_request_waits_until_the_rules_are_cleared(
    faults: Faults, store: ObjectStore
) -> None:
    faults.on("*/stalled", fault=Stall())
    with ThreadPoolExecutor(1) as pool:
        put = pool.submit(faults.store.put, "stalled", b"x")
        time.sleep(0.5)
        assert not put.done() and not store.exists("stalled")
        faults.clear()
        put.result()
    assert store.get("stalled") == b"x"


def test_a_function_runs_before_or_after_the_server(faults: Faults, store: ObjectStore) -> None:
    seen = []
    faults.on("*/new", "PUT", fault=Call(lambda: seen.append(store.exists("new"))), times=1)
    faults.on("*/new", "PUT", fault=Call(lambda: seen.append(store.get("new")), "after"), times=1)
    faults.store.put("new", b"1")
    faults.store.put("new", b"2")
    assert seen == [False, b"2"]


def test_a_server_killed_under_a_request_is_a_cut_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with seaweed.serve(tmp_path, "awares") as server:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.access_key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.secret_key)
        with proxy(
            ObjectStore(StoreConfig(endpoint=server.endpoint)), retry_budget_s=1.0
        ) as faults:
            faults.store.put("key", BODY)
            faults.on("*/key", "GET", fault=Call(lambda: os.kill(server.pid, 9)), times=1)
            with pytest.raises(StoreUnavailable, match="mini/key"):
                faults.store.get("key")


def test_leaving_ends_stalled_requests_without_their_effect(store: ObjectStore) -> None:
    before = threading.active_count()
    with ThreadPoolExecutor(1) as pool:
        with proxy(store, retry_budget_s=0.1) as faults:
            faults.on(fault=Stall())
            put = pool.submit(faults.store.put, "late", b"x")
            while not faults.requests:
                time.sleep(0.01)
        with pytest.raises(StoreUnavailable):
            put.result()
    assert not store.exists("late")
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before


# How ObjectStore handles each fault.


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
    """A reply that takes longer than SILENCE_S in all is read to its end, without a retry."""
    monkeypatch.setattr("awares_platform.store.bucket.SILENCE_S", 1.0)
    store.put("key", BODY)
    with proxy(store, retry_budget_s=0.5) as faults:
        faults.on(fault=Throttle(len(BODY) / 2.5))
        assert faults.store.get("key") == BODY
    assert len(faults.requests) == 1
