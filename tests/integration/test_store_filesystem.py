"""Tests the pyarrow file system through which Ray Train reads and writes the store."""

import pickle
import threading
import time
from pathlib import Path

import pyarrow.fs
import pytest
from pyarrow.fs import FileSelector, FileType
from ray.train.v2._internal.execution.storage import StorageContext, delete_fs_path

from awares_platform.store import ObjectStore
from awares_platform.store.errors import PreconditionFailed, StoreUnavailable
from awares_platform.training.filesystem import filesystem
from tests.integration.fault import Fault, Reset, Status
from tests.integration.fault_proxy import proxy

pytestmark = pytest.mark.integration


def root(store: ObjectStore) -> str:
    return f"{store.config.bucket}/{store.config.prefix}"


def test_ray_trains_storage_is_the_object_store(store: ObjectStore, tmp_path: Path) -> None:
    files = pickle.loads(pickle.dumps(filesystem(store.config)))
    assert files == filesystem(store.config)
    storage = StorageContext(f"{root(store)}/runs/r/checkpoints", "sft", files)
    marked = [info.key for info in store.list("")]
    assert marked == ["runs/r/checkpoints/sft/.validate_storage_marker"]
    (tmp_path / "zero").mkdir()
    (tmp_path / "zero" / "shard.pt").write_bytes(b"x" * 9_000_000)
    store.upload_directory(tmp_path, "runs/r/checkpoints/sft/step-1")
    saved = storage.build_checkpoint_path_from_name("step-1")
    assert files.get_file_info(saved).type == FileType.Directory
    listed = files.get_file_info(FileSelector(storage.experiment_fs_path))
    assert {info.base_name: info.type for info in listed} == {
        ".validate_storage_marker": FileType.File,
        "step-1": FileType.Directory,
    }
    back = tmp_path / "back"
    pyarrow.fs.copy_files(saved, str(back), source_filesystem=files)
    assert (back / "zero" / "shard.pt").read_bytes() == b"x" * 9_000_000
    delete_fs_path(files, saved)
    assert files.get_file_info(saved).type == FileType.NotFound
    assert [info.key for info in store.list("")] == marked


@pytest.mark.parametrize("fault", [Status(503), Reset()])
def test_an_outage_within_the_budget_is_survived(store: ObjectStore, fault: Fault) -> None:
    with proxy(store, retry_budget_s=30.0) as faults:
        files = filesystem(faults.store.config)
        faults.on(fault=fault)
        restored = threading.Timer(2.0, faults.clear)
        restored.start()
        with files.open_output_stream(f"{root(store)}/snapshot.json") as stream:
            stream.write(b"{}")
        restored.join()
        with files.open_input_stream(f"{root(store)}/snapshot.json") as stream:
            assert stream.read() == b"{}"


def test_a_longer_outage_ends_with_the_budget_and_names_the_object(store: ObjectStore) -> None:
    with proxy(store, retry_budget_s=1.0) as faults:
        files = filesystem(faults.store.config)
        faults.on(fault=Reset())
        started = time.monotonic()
        with pytest.raises(StoreUnavailable, match=r"runs/a: .* retry budget of 1 s"):
            files.get_file_info(f"{root(store)}/runs/a")
        assert time.monotonic() - started < 10


def test_a_file_that_changes_while_it_is_read_is_refused(store: ObjectStore) -> None:
    store.put("a", b"12345678")
    with filesystem(store.config).open_input_file(f"{root(store)}/a") as file:
        assert file.read(4) == b"1234"
        store.put("a", b"abcdefgh")
        with pytest.raises(PreconditionFailed):
            file.read(4)


def test_a_path_outside_of_the_store_is_refused(store: ObjectStore) -> None:
    with pytest.raises(ValueError, match="not below store.url"):
        filesystem(store.config).get_file_info("another-bucket/a")
    with pytest.raises(FileNotFoundError):
        filesystem(store.config).open_input_file(f"{root(store)}/absent")
