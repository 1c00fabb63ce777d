"""Tests that the fault proxy injects each kind of fault into requests to a real S3 server."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError, ResponseStreamingError

from awares_platform.config.store import StoreConfig
from awares_platform.store import ObjectStore, seaweed
from awares_platform.store.errors import StoreUnavailable
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
from tests.integration.fault_proxy import proxy
from tests.integration.fault_rules import Faults
from tests.integration.proxied_object import BODY, raw_get, statuses

pytestmark = pytest.mark.integration


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
