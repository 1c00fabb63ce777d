"""Tests that the writer's bucket policy allows every request of ObjectStore and of Ray Train.

A proxy in front of a real S3 server records the requests.
"""

from pathlib import Path

import pyarrow.fs
import pytest

from awares_platform.store import ObjectStore
from awares_platform.training.filesystem import filesystem
from tests.integration.fault_proxy import proxy
from tests.integration.fault_rules import Faults, Request
from tests.unit.manifests.policy import PREFIX, allows

pytestmark = pytest.mark.integration
WRITER = Path(__file__).parents[2] / "manifests/iampolicy.writer.yaml"
OBJECT = {
    "GET": "s3:GetObject",
    "HEAD": "s3:GetObject",
    "PUT": "s3:PutObject",
    "POST": "s3:PutObject",
    "DELETE": "s3:DeleteObject",
}
"""Maps the method of a request about an object to the permission that the request needs."""
BUCKET = {
    "GET": "s3:ListBucket",
    "HEAD": "s3:ListBucket",
    "PUT": "s3:CreateBucket",
    "POST": "s3:DeleteObject",
    "DELETE": "s3:DeleteBucket",
}
"""Maps the method of a request about the bucket to the permission that the request needs.

A POST to the bucket deletes the objects that the request body lists. The proxy does not record the
body, so other tests check the prefix of these objects.
"""


def refused(requests: list[Request], prefix: str) -> list[str]:
    """Return the method and key of each request that the writer's bucket policy does not allow."""
    found = []
    for request in requests:
        if request.key.rstrip("/"):
            key = (
                request.key.replace(prefix, PREFIX, 1)
                if request.key.startswith(prefix)
                else request.key
            )
            granted = allows(WRITER, OBJECT[request.method], key)
        else:
            granted = BUCKET[request.method] == "s3:DeleteObject" or allows(
                WRITER, BUCKET[request.method]
            )
        if not granted:
            found.append(f"{request.method} {request.key}")
    return found


def use_store(store: ObjectStore, scratch: Path) -> None:
    """Call methods of `store` that together send requests with all HTTP methods of OBJECT."""
    large = scratch / "large"
    large.write_bytes(b"x" * (9 * 2**20))
    store.check()
    etag = store.put("policy/a", b"1", if_none_match=True)
    store.put("policy/a", b"2", if_match=etag)
    store.get_range("policy/a", 0, 1)
    assert not store.exists("policy/absent")
    store.upload_file(large, "policy/large")
    store.download_file("policy/large", scratch / "back")
    assert len([*store.list("policy/")]) == 2
    store.delete("policy/a")
    assert store.delete_prefix("policy/") == 1


def use_filesystem(files: pyarrow.fs.PyFileSystem, root: str, scratch: Path) -> None:
    """Create, copy, list and delete a checkpoint with the calls that Ray Train makes."""
    shard = scratch / "shards"
    shard.mkdir()
    (shard / "rank-0.pt").write_bytes(b"y" * 2**20)
    files.create_dir(f"{root}/checkpoints/sft/step-1", recursive=True)
    with files.open_output_stream(f"{root}/checkpoints/sft/.marker") as stream:
        stream.write(b"")
    pyarrow.fs.copy_files(
        str(shard),
        f"{root}/checkpoints/sft/step-1",
        source_filesystem=pyarrow.fs.LocalFileSystem(),
        destination_filesystem=files,
    )
    found = files.get_file_info(pyarrow.fs.FileSelector(f"{root}/checkpoints/sft", recursive=True))
    assert any(info.path.endswith("rank-0.pt") for info in found)
    assert files.get_file_info(f"{root}/checkpoints/absent").type == pyarrow.fs.FileType.NotFound
    with files.open_input_stream(f"{root}/checkpoints/sft/step-1/rank-0.pt") as stream:
        assert len(stream.read()) == 2**20
    files.delete_dir(f"{root}/checkpoints/sft/step-1")


@pytest.fixture
def faults(seaweed: ObjectStore):
    with proxy(seaweed) as running:
        yield running


def test_the_store_makes_no_other_request(faults: Faults, tmp_path: Path) -> None:
    use_store(faults.store, tmp_path)
    assert {request.method for request in faults.requests} == {
        "GET",
        "HEAD",
        "PUT",
        "POST",
        "DELETE",
    }
    assert refused(faults.requests, faults.store.config.prefix) == []


def test_checkpoints_make_no_other_request(faults: Faults, tmp_path: Path) -> None:
    """The store's prefix has two levels, like "team/project".

    As in a real run, the store already holds a data set below this prefix.
    """
    config = faults.store.config
    faults.store.put("datasets/manifest.json", b"{}")
    use_filesystem(filesystem(config), f"{config.bucket}/{config.prefix}/policy", tmp_path)
    assert len(faults.requests) > 5
    assert refused(faults.requests, config.prefix) == []


def test_a_request_elsewhere_is_noticed() -> None:
    assert refused(
        [Request("GET", "tests/a"), Request("GET", "other/a"), Request("PUT", "")], "tests"
    ) == ["GET other/a", "PUT "]
