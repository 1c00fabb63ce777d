"""Tests that files and directories are uploaded and downloaded completely or not at all."""

import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from awares_platform.config.store import StoreConfig
from awares_platform.store import ObjectStore, multipart, seaweed
from awares_platform.store.errors import PreconditionFailed, StoreError, StoreUnavailable
from tests.integration.fault import LostReply
from tests.integration.fault_proxy import proxy
from tests.integration.proxied_object import statuses

pytestmark = pytest.mark.integration


@pytest.fixture
def three_parts(tmp_path: Path) -> Path:
    """Return a file that an upload splits into two full parts and one shorter part."""
    path = tmp_path / "large.bin"
    path.write_bytes(os.urandom(2 * multipart.PART_BYTES + 12_345))
    return path


def test_a_large_file_is_transferred_in_parts(
    store: ObjectStore, three_parts: Path, tmp_path: Path
) -> None:
    etag = store.upload_file(three_parts, "large")
    assert etag.strip('"').endswith("-3")
    store.download_file("large", tmp_path / "new" / "copy")
    assert (tmp_path / "new" / "copy").read_bytes() == three_parts.read_bytes()
    assert os.listdir(tmp_path / "new") == ["copy"]


def test_the_condition_of_a_large_file_holds_at_its_completion(
    store: ObjectStore, three_parts: Path
) -> None:
    etag = store.upload_file(three_parts, "large", if_none_match=True)
    with pytest.raises(PreconditionFailed):
        store.upload_file(three_parts, "large", if_none_match=True)
    store.upload_file(three_parts, "large", if_match=etag)
    store.put("large", b"other")
    with pytest.raises(PreconditionFailed):
        store.upload_file(three_parts, "large", if_match=etag)
    assert store.get("large") == b"other"
    uploads = store.client.list_multipart_uploads(
        Bucket=store.config.bucket, Prefix=store.address("large")["Key"]
    )
    assert not uploads.get("Uploads")


def test_an_object_replaced_while_it_is_read_is_refused(
    store: ObjectStore, three_parts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.upload_file(three_parts, "large")
    info = store.head("large")
    store.put("large", b"other" * 10_000_000)
    monkeypatch.setattr(ObjectStore, "head", lambda self, key: info)
    target = three_parts.with_name("copy")
    with pytest.raises(PreconditionFailed, match="/large"):
        store.download_file("large", target)
    assert not target.exists() and os.listdir(three_parts.parent) == ["large.bin"]


def test_directories_go_up_and_come_back(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "up" / "inner").mkdir(parents=True)
    (tmp_path / "up" / "a.json").write_text("{}")
    (tmp_path / "up" / "inner" / "empty").write_bytes(b"")
    assert store.upload_directory(tmp_path / "up", "dir/") == 2
    assert store.download_directory("dir", tmp_path / "down") == 2
    assert (tmp_path / "down" / "a.json").read_text() == "{}"
    assert (tmp_path / "down" / "inner" / "empty").read_bytes() == b""


def test_a_store_killed_mid_upload_leaves_no_object_and_no_half_file(
    tmp_path: Path, three_parts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with seaweed.serve(tmp_path / "weed", "awares") as server:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.access_key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.secret_key)
        store = ObjectStore(StoreConfig(endpoint=server.endpoint, retry_budget_s=1.0))
        store.put("before", b"safe")
        original = store.client.upload_part

        def kill_then_upload(**request: object) -> object:
            # Parts are uploaded in parallel, so another call may already have killed the server.
            with suppress(ProcessLookupError):
                os.kill(server.pid, signal.SIGKILL)
            return original(**request)

        monkeypatch.setattr(store.client, "upload_part", kill_then_upload)
        with pytest.raises(StoreUnavailable, match="s3://awares/mini/large"):
            store.upload_file(three_parts, "large")
        with pytest.raises(StoreUnavailable):
            store.download_file("before", tmp_path / "copy")
        assert not (tmp_path / "copy").exists()
    with seaweed.serve(tmp_path / "weed", "awares") as server:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.access_key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.secret_key)
        again = ObjectStore(StoreConfig(endpoint=server.endpoint, retry_budget_s=5.0))
        assert again.get("before") == b"safe"
        assert not again.exists("large")


def test_a_completion_whose_reply_is_lost_counts_as_ours(
    store: ObjectStore, three_parts: Path, tmp_path: Path
) -> None:
    with proxy(store) as faults:
        faults.on("*/large", "POST", query="uploadId=*", fault=LostReply(), times=1)
        faults.store.upload_file(three_parts, "large", if_none_match=True)
        assert statuses(faults, "POST")[:2] == [200, 0]
    store.download_file("large", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == three_parts.read_bytes()


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


def test_encrypted_objects_come_back_in_one_part_and_in_many(
    store: ObjectStore, large: Path, tmp_path: Path
) -> None:
    """The server encrypts with its own keys (AES256), because SeaweedFS has no key service."""
    settings = store.config.model_copy(update={"encryption": "AES256"})
    encrypted = ObjectStore(settings)
    etag = encrypted.put("small", b"0123456789", if_none_match=True)
    encrypted.put("small", b"9876543210", if_match=etag)
    encrypted.upload_file(large, "large", if_none_match=True)
    encrypted.download_file("large", tmp_path / "copy")
    assert encrypted.get_range("small", 2, 5) == b"765"
    assert (tmp_path / "copy").read_bytes() == large.read_bytes()
    for key in ("small", "large"):
        found = store.client.head_object(**store.address(key))
        assert found["ServerSideEncryption"] == "AES256"
