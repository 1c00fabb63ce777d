"""Tests that a conditional put succeeds for exactly one writer, even if the reply is lost."""

import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from awares_platform.config.store import StoreConfig
from awares_platform.store import ObjectStore
from awares_platform.store.errors import PreconditionFailed, StoreUnavailable
from tests.integration.fault import LostReply
from tests.integration.fault_proxy import proxy
from tests.integration.proxied_object import statuses

pytestmark = pytest.mark.integration


def test_a_conditional_put_wins_once(store: ObjectStore) -> None:
    etag = store.put("HEAD", b"1", if_none_match=True)
    with pytest.raises(
        PreconditionFailed, match=f"{store.config.url}/HEAD: another writer was first"
    ):
        store.put("HEAD", b"2", if_none_match=True)
    newer = store.put("HEAD", b"2", if_match=etag)
    with pytest.raises(PreconditionFailed):
        store.put("HEAD", b"3", if_match=etag)
    with pytest.raises(PreconditionFailed):
        store.put("absent", b"3", if_match=newer)
    assert store.get_with_etag("HEAD") == (b"2", newer)


@pytest.mark.parametrize("conditional", ["if_none_match", "if_match"])
def test_one_of_sixteen_racing_writers_wins(store: ObjectStore, conditional: str) -> None:
    condition: dict[str, Any] = (
        {"if_none_match": True}
        if conditional == "if_none_match"
        else {"if_match": store.put("HEAD", b"start")}
    )
    barrier = threading.Barrier(16)

    def write(writer: int) -> bool:
        barrier.wait()
        try:
            store.put("HEAD", str(writer).encode(), **condition)
        except PreconditionFailed:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(write, range(16)))
    assert won.count(True) == 1
    assert store.get("HEAD") == str(won.index(True)).encode()


def test_a_conditional_put_whose_reply_is_lost_counts_as_ours(store: ObjectStore) -> None:
    with proxy(store) as faults:
        faults.on("*/HEAD", "PUT", fault=LostReply(), times=1)
        etag = faults.store.put("HEAD", b"mine", if_none_match=True)
        assert store.get_with_etag("HEAD") == (b"mine", etag)
        faults.on("*/HEAD", "PUT", fault=LostReply(), times=1)
        newer = faults.store.put("HEAD", b"newer", if_match=etag)
        assert store.get_with_etag("HEAD") == (b"newer", newer)
        assert statuses(faults, "PUT") == [0, 412, 0, 412]


def test_a_lost_race_does_not_count_as_ours(store: ObjectStore) -> None:
    store.put("HEAD", b"theirs")
    with proxy(store) as faults:
        faults.on("*/HEAD", "PUT", fault=LostReply(), times=1)
        with pytest.raises(PreconditionFailed):
            faults.store.put("HEAD", b"mine", if_none_match=True)
    assert store.get("HEAD") == b"theirs"


def test_a_write_does_not_wait_between_headers_and_body() -> None:
    """The client must send the body without waiting for `100 Continue`.

    A writer that is killed between headers and body would leave an empty object in SeaweedFS.
    """
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        store = ObjectStore(
            StoreConfig(url="s3://awares/tests", endpoint=endpoint, retry_budget_s=0.1)
        )

        def everything() -> bytes:
            connection, _ = server.accept()
            with connection, connection.makefile("rb") as file:
                headers = b"".join(iter(file.readline, b"\r\n"))
                return headers + file.read(len(b"the body"))

        received = pool.submit(everything)
        with pytest.raises(StoreUnavailable):
            store.put("HEAD", b"the body", if_none_match=True)
        assert b"the body" in received.result() and b"Expect" not in received.result()
