"""Tests that a report finds a run on disk or in the store, and refuses an unknown run."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from awares.errors import DataError
from awares_platform.config import PlatformConfig
from awares_platform.config.run import RunConfig
from awares_platform.config.store import StoreConfig
from awares_platform.data.images import Images
from awares_platform.report import page
from awares_platform.report.files import RunFiles, require_run
from awares_platform.report.records import read_run
from awares_platform.store import ObjectStore
from awares_platform.store.errors import NotFound


class MemoryStore:
    """A fake store that keeps objects in memory."""

    config = StoreConfig(url="s3://awares/team")

    def __init__(self, **objects: bytes) -> None:
        self.objects = dict(objects)

    def list(self, prefix: str = "") -> Iterator[Any]:
        keys = (key for key in sorted(self.objects) if key.startswith(prefix))
        return (SimpleNamespace(key=key) for key in keys)

    def download_file(self, key: str, path: Path) -> None:
        if key not in self.objects:
            raise NotFound(key)
        path.write_bytes(self.objects[key])


RESULTS = b'{"policies": {"low": {"accuracy": 0.5}}, "labels": {"LR": 3}}'
METRICS = b'{"step": 0, "time": 1.0, "reward/mean": 7.0}\n'
STORED = {
    "runs/far/evaluate/results.json": RESULTS,
    "runs/far/grpo/metrics.jsonl": METRICS,
    "runs/far/sft/versions.json": b'{"ray": "2.60.0"}',
}


def stored(objects: dict[str, bytes]) -> ObjectStore:
    return cast(ObjectStore, MemoryStore(**objects))


def test_a_run_that_only_the_store_has_is_read_from_there(tmp_path: Path) -> None:
    files = RunFiles(stored(STORED), tmp_path / "runs", "far", tmp_path / "cache")
    record = read_run(files, "far", 0)
    assert record.policies == {"low": {"accuracy": 0.5}} and record.labels == {"LR": 3}
    assert [row.values for row in record.metrics["grpo"]] == [{"reward/mean": 7.0}]
    assert record.versions == {"ray": "2.60.0"}
    assert "sft" not in record.metrics and record.episodes["awares"] == ()
    assert not (tmp_path / "runs").exists(), (
        "files from the store must not be written to the directory of local runs"
    )


def test_a_local_file_precedes_the_stored_one(tmp_path: Path) -> None:
    local = tmp_path / "far" / "evaluate" / "results.json"
    local.parent.mkdir(parents=True)
    local.write_text('{"policies": {}, "labels": {"HR": 1}}')
    record = read_run(RunFiles(stored(STORED), tmp_path, "far", tmp_path / "cache"), "far", 0)
    assert record.labels == {"HR": 1}
    assert len(record.metrics["grpo"]) == 1


def test_an_unknown_run_is_refused_and_the_runs_that_exist_are_listed(tmp_path: Path) -> None:
    (tmp_path / "near" / "sft").mkdir(parents=True)
    (tmp_path / "nosuch").mkdir()
    (tmp_path / "nosuch" / "report.html").write_text("an empty page of an older version")
    run = RunConfig(name="nosuch", directory=tmp_path)
    with pytest.raises(DataError) as caught:
        require_run(stored(STORED), run)
    assert str(caught.value) == (
        f"run 'nosuch' is neither in {tmp_path} nor in s3://awares/team; runs that exist: far, near"
    )
    for known in ("near", "far"):
        require_run(stored(STORED), run.model_copy(update={"name": known}))


def test_without_any_run_the_message_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no run exists there yet"):
        require_run(stored({}), RunConfig(name="nosuch", directory=tmp_path / "absent"))


def test_the_report_of_an_unknown_run_writes_no_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page.ObjectStore, "from_config", lambda config: stored(STORED))
    run = {"name": "nosuch", "directory": tmp_path}
    with pytest.raises(DataError, match="runs that exist: far"):
        page.run(PlatformConfig.model_validate({"run": run}), Images(stored(STORED)))
    assert list(tmp_path.iterdir()) == []
