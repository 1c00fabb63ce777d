"""Tests how objects in a real store are read, listed, addressed by key, and deleted."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from awares_platform.store import ObjectStore
from awares_platform.store.errors import AccessDenied, NotFound

pytestmark = pytest.mark.integration


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


def test_a_store_can_be_pickled_with_its_connection_open(store: ObjectStore) -> None:
    store.put("k", b"v")
    copy = pickle.loads(pickle.dumps(store))
    assert copy == store and copy.get("k") == b"v"


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
