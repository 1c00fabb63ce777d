"""ObjectStore against a real SeaweedFS."""

import os
import pickle
import signal
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from awares.errors import ConfigError
from awares_platform.config.store import StoreConfig
from awares_platform.store import ObjectStore, multipart, seaweed
from awares_platform.store.errors import (
    AccessDenied,
    MissingBucket,
    NotFound,
    PreconditionFailed,
    StoreError,
    StoreUnavailable,
)
from tests.integration.fault import LostReply
from tests.integration.fault_proxy import proxy

pytestmark = pytest.mark.integration


@pytest.fixture
def store(seaweed: ObjectStore, request: pytest.FixtureRequest) -> ObjectStore:
    """A prefix for one test alone."""
    return ObjectStore(
        seaweed.config.model_copy(
            update={"url": f"s3://awares/{request.node.name}", "retry_budget_s": 3.0}
        )
    )


def changed(store: ObjectStore, **changes: object) -> ObjectStore:
    return ObjectStore(store.config.model_copy(update=changes))


def operations(store: ObjectStore, path: Path) -> list[Callable[[], object]]:
    return [
        store.check,
        lambda: store.put("key", b"x"),
        lambda: store.put("key", b"x", if_none_match=True),
        lambda: store.get("key"),
        lambda: store.get_range("key", 0, 1),
        lambda: store.exists("key"),
        lambda: [*store.list()],
        lambda: store.delete_prefix("key"),
        lambda: store.upload_file(path, "key"),
        lambda: store.download_file("key", path.with_name("copy")),
    ]


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A file of three parts; the last one is shorter."""
    path = tmp_path / "large.bin"
    path.write_bytes(os.urandom(2 * multipart.PART_BYTES + 12_345))
    return path


def test_objects_come_back_as_they_were_written(store: ObjectStore) -> None:
    etag = store.put("a/b", b"hello")
    assert store.get("a/b") == b"hello"
    assert store.get_with_etag("a/b") == (b"hello", etag)
    assert store.exists("a/b") and not store.exists("a") and not store.exists("a/b/c")
    assert (store.head("a/b").size, store.head("a/b").etag) == (5, etag)
    store.delete("a/b")
    store.delete("a/b")
    assert not store.exists("a/b")


def test_ranges_are_slices(store: ObjectStore) -> None:
    store.put("digits", b"0123456789")
    assert store.get_range("digits", 2, 5) == b"234"
    assert store.get_range("digits", 8, 100) == b"89"
    assert store.get_range("digits", 10, 12) == b""
    assert store.get_range("digits", 4, 4) == b""
    with pytest.raises(ValueError, match="5 to 4"):
        store.get_range("digits", 5, 4)


def test_an_absent_object_is_not_found_by_its_full_name(store: ObjectStore, tmp_path: Path) -> None:
    for operation in (
        store.get,
        store.head,
        lambda key: store.get_range(key, 0, 1),
        lambda key: store.download_file(key, tmp_path / "x"),
    ):
        with pytest.raises(NotFound, match=f"{store.config.url}/no/such"):
            operation("no/such")
    with pytest.raises(NotFound, match="no/such/: no objects there"):
        store.download_directory("no/such", tmp_path)


def test_listing_goes_page_by_page_in_key_order(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [f"list/{number:04}" for number in range(25)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda key: store.put(key, key.encode()), keys))
    store.put("other", b"")
    original = store.client.list_objects_v2
    monkeypatch.setattr(
        store.client, "list_objects_v2", lambda **request: original(MaxKeys=10, **request)
    )
    assert [(entry.key, entry.size) for entry in store.list("list/")] == [
        (key, len(key)) for key in keys
    ]
    assert store.delete_prefix("list/") == 25
    assert [entry.key for entry in store.list()] == ["other"]


@pytest.mark.parametrize("key", ["", "/absolute", "a/../b", ".."])
def test_a_key_stays_below_the_prefix(store: ObjectStore, key: str) -> None:
    with pytest.raises(ValueError, match="is no key"):
        store.put(key, b"")


def test_deleting_everything_is_refused(store: ObjectStore) -> None:
    with pytest.raises(ValueError, match="refusing to delete everything"):
        store.delete_prefix("/")


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
    condition = (
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


def test_a_large_file_is_transferred_in_parts(
    store: ObjectStore, large: Path, tmp_path: Path
) -> None:
    etag = store.upload_file(large, "large")
    assert etag.strip('"').endswith("-3")
    store.download_file("large", tmp_path / "new" / "copy")
    assert (tmp_path / "new" / "copy").read_bytes() == large.read_bytes()
    assert os.listdir(tmp_path / "new") == ["copy"]


def test_the_condition_of_a_large_file_holds_at_its_completion(
    store: ObjectStore, large: Path
) -> None:
    etag = store.upload_file(large, "large", if_none_match=True)
    with pytest.raises(PreconditionFailed):
        store.upload_file(large, "large", if_none_match=True)
    store.upload_file(large, "large", if_match=etag)
    store.put("large", b"other")
    with pytest.raises(PreconditionFailed):
        store.upload_file(large, "large", if_match=etag)
    assert store.get("large") == b"other"
    uploads = store.client.list_multipart_uploads(
        Bucket=store.config.bucket, Prefix=store.address("large")["Key"]
    )
    assert not uploads.get("Uploads")


def test_an_object_replaced_while_it_is_read_is_refused(
    store: ObjectStore, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.upload_file(large, "large")
    info = store.head("large")
    store.put("large", b"other" * 10_000_000)
    monkeypatch.setattr(ObjectStore, "head", lambda self, key: info)
    target = large.with_name("copy")
    with pytest.raises(PreconditionFailed, match="/large"):
        store.download_file("large", target)
    assert not target.exists() and os.listdir(large.parent) == ["large.bin"]


def test_directories_go_up_and_come_back(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "up" / "inner").mkdir(parents=True)
    (tmp_path / "up" / "a.json").write_text("{}")
    (tmp_path / "up" / "inner" / "empty").write_bytes(b"")
    assert store.upload_directory(tmp_path / "up", "dir/") == 2
    assert store.download_directory("dir", tmp_path / "down") == 2
    assert (tmp_path / "down" / "a.json").read_text() == "{}"
    assert (tmp_path / "down" / "inner" / "empty").read_bytes() == b""


def test_a_store_can_be_pickled_with_its_connection_open(store: ObjectStore) -> None:
    store.put("k", b"v")
    copy = pickle.loads(pickle.dumps(store))
    assert copy == store and copy.get("k") == b"v"


def test_a_missing_bucket_is_not_reported_as_a_missing_object(
    store: ObjectStore, tmp_path: Path
) -> None:
    nowhere = changed(store, url="s3://nowhere/x")
    (tmp_path / "file").write_bytes(b"x" * (multipart.PART_BYTES + 1))
    for operation in operations(nowhere, tmp_path / "file"):
        with pytest.raises(
            MissingBucket,
            match="s3://nowhere/x.* has no bucket 'nowhere'; create it, or correct store.url",
        ):
            operation()


def test_wrong_credentials_are_named(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    (tmp_path / "file").write_bytes(b"x")
    for operation in operations(changed(store), tmp_path / "file"):
        variables = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        with pytest.raises(
            AccessDenied, match=f"{store.config.url}.* denies access .* check {variables}"
        ):
            operation()


def test_absent_credentials_are_named(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(
        AccessDenied, match="no credentials .* set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    ):
        changed(store).check()


def test_a_store_that_is_down_fails_within_the_budget(store: ObjectStore) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        down = changed(
            store, endpoint=f"http://127.0.0.1:{unused.getsockname()[1]}", retry_budget_s=1.0
        )
        started = time.monotonic()
        with pytest.raises(
            StoreUnavailable,
            match=r"/key: http://127.0.0.1:\d+ unavailable for .* of 1 s.*store.endpoint",
        ):
            down.get("key")
        assert 0.9 < time.monotonic() - started < 5


def test_the_local_store_needs_a_session() -> None:
    with pytest.raises(ConfigError, match="runtime.session"):
        ObjectStore.from_config(StoreConfig(endpoint="local"))


def test_a_store_killed_mid_upload_leaves_no_object_and_no_half_file(
    tmp_path: Path, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with seaweed.serve(tmp_path / "weed", "awares") as server:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.access_key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.secret_key)
        store = ObjectStore(StoreConfig(endpoint=server.endpoint, retry_budget_s=1.0))
        store.put("before", b"safe")
        original = store.client.upload_part

        def kill_then_upload(**request: object) -> object:
            os.kill(server.pid, signal.SIGKILL)
            return original(**request)

        monkeypatch.setattr(store.client, "upload_part", kill_then_upload)
        with pytest.raises(StoreUnavailable, match="s3://awares/mini/large"):
            store.upload_file(large, "large")
        with pytest.raises(StoreUnavailable):
            store.download_file("before", tmp_path / "copy")
        assert not (tmp_path / "copy").exists()
    with seaweed.serve(tmp_path / "weed", "awares") as server:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.access_key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.secret_key)
        again = ObjectStore(StoreConfig(endpoint=server.endpoint, retry_budget_s=5.0))
        assert again.get("before") == b"safe"
        assert not again.exists("large")


def test_a_conditional_put_whose_reply_is_lost_counts_as_ours(store: ObjectStore) -> None:
    with proxy(store) as faults:
        faults.on("*/HEAD", "PUT", fault=LostReply(), times=1)
        etag = faults.store.put("HEAD", b"mine", if_none_match=True)
        assert store.get_with_etag("HEAD") == (b"mine", etag)
        faults.on("*/HEAD", "PUT", fault=LostReply(), times=1)
        newer = faults.store.put("HEAD", b"newer", if_match=etag)
        assert store.get_with_etag("HEAD") == (b"newer", newer)
        assert [request.status for request in faults.requests if request.method == "PUT"] == [
            0,
            412,
            0,
            412,
        ]


def test_a_lost_race_does_not_count_as_ours(store: ObjectStore) -> None:
    store.put("HEAD", b"theirs")
    with proxy(store) as faults:
        faults.on("*/HEAD", "PUT", fault=LostReply(), times=1)
        with pytest.raises(PreconditionFailed):
            faults.store.put("HEAD", b"mine", if_none_match=True)
    assert store.get("HEAD") == b"theirs"


def test_a_completion_whose_reply_is_lost_counts_as_ours(
    store: ObjectStore, large: Path, tmp_path: Path
) -> None:
    with proxy(store) as faults:
        faults.on("*/large", "POST", query="uploadId=*", fault=LostReply(), times=1)
        faults.store.upload_file(large, "large", if_none_match=True)
        assert [request.status for request in faults.requests if request.method == "POST"][:2] == [
            200,
            0,
        ]
    store.download_file("large", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == large.read_bytes()


def reply_about_one_object(code: str) -> dict[str, object]:
    return {"Errors": [{"Key": "x", "Code": code, "Message": "injected"}]}


def test_objects_that_could_not_be_deleted_are_retried_or_named(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put("dir/x", b"")
    original, replies = (
        store.client.delete_objects,
        [reply_about_one_object("SlowDown"), reply_about_one_object("InternalError")],
    )
    monkeypatch.setattr(
        store.client,
        "delete_objects",
        lambda **request: replies.pop() if replies else original(**request),
    )
    assert store.delete_prefix("dir/") == 1
    assert not replies and not store.exists("dir/x")
    store.put("dir/x", b"")
    replies.append(reply_about_one_object("AccessDenied"))
    with pytest.raises(AccessDenied, match="/dir: .* denies access"):
        store.delete_prefix("dir/")


def test_a_name_that_leads_out_of_the_directory_is_refused(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put("dir/x", b"")
    entry = next(store.list("dir/"))
    monkeypatch.setattr(
        ObjectStore, "list", lambda self, prefix: iter([type(entry)("dir/../../evil", 0, "")])
    )
    with pytest.raises(StoreError, match="leads out of"):
        store.download_directory("dir", tmp_path)


def test_a_write_does_not_wait_between_headers_and_body() -> None:
    """If a process were killed during such a wait, SeaweedFS would store an empty object."""
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
