"""Tests that the fault proxy records all requests, and changes only those that match a rule."""

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from awares_platform.store import ObjectStore
from awares_platform.store.errors import NotFound, PreconditionFailed, StoreUnavailable
from tests.integration.fault import Delay, Stall, Status
from tests.integration.fault_proxy import proxy
from tests.integration.fault_rules import Faults, Request
from tests.integration.proxied_object import BODY, raw_get

pytestmark = pytest.mark.integration


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
    # After a reply with status 404, ObjectStore sends another request to check the bucket.
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
    """Send a body in chunks, as boto3 does with a stream of unknown length.

    The test uses a presigned URL, whose signature does not cover the body.
    """
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
