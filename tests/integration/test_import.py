"""Tests `awares import` with a real store: all kinds of source, kills, and two imports at once."""

import io
import json
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from awares.errors import DataError
from awares_platform.config.data import DataConfig
from awares_platform.config.imports import ImportsConfig
from awares_platform.data.dataset import Images, Split, read_manifest, read_samples, read_split
from awares_platform.data.intake import job
from awares_platform.data.intake.contamination import clean_train
from awares_platform.data.intake.seen import Seen
from awares_platform.data.intake.summary import ImportResult
from awares_platform.runtime.job_lease import JobRefused, dataset_lease, hold
from awares_platform.store import ObjectStore
from awares_platform.store.errors import StoreUnavailable

pytestmark = pytest.mark.integration
ROWS = 23
DATA = DataConfig(shard_rows=5)


def page(number: int) -> bytes:
    image = Image.effect_noise((64 + number, 48), 120).convert("RGB")
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a directory with ROWS images and the file rows.jsonl, with a row for each image."""
    top = tmp_path_factory.mktemp("pages")
    rows = []
    for number in range(ROWS):
        (top / f"{number}.png").write_bytes(page(number))
        rows.append({"id": number, "image": f"{number}.png", "question": "Why?", "answer": number})
    # Another question about the image of row 3, with the same id.
    rows.append({"id": 3, "image": "3.png", "question": "When?", "answer": "7"})
    # A copy of row 4, and a row whose image is missing.
    rows += [{**rows[4]}, {**rows[5], "image": "missing.png"}]
    (top / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return top


def imported(
    store: ObjectStore, source: str | Path, name: str, split: str = "train", **settings: Any
) -> ImportResult:
    request = job.ImportRequest(name, str(source), split)
    return job.run(request, ImportsConfig(**settings), DATA, store)


def content(store: ObjectStore, name: str, split: str = "train") -> list[tuple[str, str, str]]:
    samples = read_samples(store, name, split)
    return [(one.sample_id, one.image, one.answer) for one in samples]


def test_rows_of_a_directory_become_a_data_set(
    seaweed: ObjectStore, pages: Path, tmp_path: Path
) -> None:
    result = imported(seaweed, pages / "rows.jsonl", "plain")
    assert result.counts.rows == {"train": ROWS + 1}
    assert result.counts.refused == {"duplicate": 1, "image not found": 1}
    assert result.counts.renamed == 1
    found = content(seaweed, "plain")
    assert [one[0] for one in found] == [*map(str, range(ROWS)), "3~2"]
    assert found[3][1] == found[-1][1], "two questions share one image"
    images = Images(seaweed, tmp_path, splits=[("plain", "train")])
    assert [images(one[1]).size for one in found] == [
        *((64 + number, 48) for number in range(ROWS)),
        (67, 48),
    ]
    assert not [*seaweed.list("datasets/plain/import-")], "the files of the steps are deleted"
    text = result.summary(seaweed.config.url)
    assert f"{ROWS + 1} rows in " in text and "rows.jsonl row 25: missing.png cannot be" in text


def test_a_finished_import_is_not_repeated(seaweed: ObjectStore, pages: Path) -> None:
    first = imported(seaweed, pages / "rows.jsonl", "once")
    manifest = seaweed.head("datasets/once/train/manifest.json").etag
    again = imported(seaweed, pages / "rows.jsonl", "once", threads=3)
    assert again.resumed and again.counts.rows == first.counts.rows
    assert seaweed.head("datasets/once/train/manifest.json").etag == manifest
    smaller = imported(seaweed, pages / "rows.jsonl", "once", max_side=60)
    assert not smaller.resumed and content(seaweed, "once") != content(seaweed, "plain")


@pytest.mark.parametrize("recorded", [{}, {"benchmark": "none"}])
def test_an_import_from_before_or_with_a_new_setting_is_not_repeated(
    seaweed: ObjectStore, pages: Path, recorded: dict[str, str]
) -> None:
    imported(seaweed, pages / "rows.jsonl", "older")
    key = "datasets/older/train/manifest.json"
    manifest = json.loads(seaweed.get(key))
    settings = manifest["recipe"]["settings"]
    settings.pop("benchmark", None)
    settings |= recorded
    seaweed.put(key, json.dumps(manifest).encode())
    assert imported(seaweed, pages / "rows.jsonl", "older").resumed
    settings["benchmark"] = "pope"
    seaweed.put(key, json.dumps(manifest).encode())
    assert not imported(seaweed, pages / "rows.jsonl", "older").resumed


class Stopping(ObjectStore):
    """A store that fails after `left` writes, as if the process ended there.

    Writes of the lease do not count, and never fail.
    """

    left: int

    def put(self, key: str, data: bytes, **options: Any) -> str:
        if not key.endswith("lease.json"):
            vars(self)["left"] -= 1
            if self.left < 0:
                raise StoreUnavailable(f"{key}: stopped by the test")
        return super().put(key, data, **options)


@pytest.mark.slow
def test_an_import_that_stops_at_any_write_goes_on(
    seaweed: ObjectStore, pages: Path, tmp_path: Path
) -> None:
    """Stop one import at its first write, a second import at its second write, and so on.

    After each stop, import again, and compare the data with an undisturbed import.
    """
    rows = (pages / "rows.jsonl").read_text().splitlines()
    (tmp_path / "rows.jsonl").write_text("\n".join([*rows[:9], rows[-1]]))
    settings = {"held_out": 0.3, "root": str(pages)}
    imported(seaweed, tmp_path / "rows.jsonl", "whole", **settings)
    want = [content(seaweed, "whole", split) for split in ("train", "test")]
    manifest = read_manifest(seaweed, "whole", "train")
    for write in range(40):
        store = Stopping(seaweed.config)
        vars(store)["left"] = write
        name = f"stop-{write}"
        try:
            imported(store, tmp_path / "rows.jsonl", name, **settings)
            break
        except StoreUnavailable:
            imported(seaweed, tmp_path / "rows.jsonl", name, **settings)
        found = read_manifest(seaweed, name, "train")
        assert [content(seaweed, name, split) for split in ("train", "test")] == want, write
        assert (found["content"], found["images"]) == (manifest["content"], manifest["images"])
        assert found["recipe"]["counts"] == manifest["recipe"]["counts"]
        assert not [*seaweed.list(f"datasets/{name}/import-")]
    assert write >= 10, "each step has a pack, shards, an index and a mark"


KILLED = """
import os, signal, sys
from awares_platform.config.data import DataConfig
from awares_platform.config.imports import ImportsConfig
from awares_platform.config.store import StoreConfig
from awares_platform.data.intake import job
from awares_platform.data.intake.contamination import clean_train
from awares_platform.data.intake.seen import Seen
from awares_platform.store import ObjectStore

class Dying(ObjectStore):
    def put(self, key, data, **options):
        if key.endswith("00001.json"):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().put(key, data, **options)

store = Dying(StoreConfig.model_validate_json(sys.argv[1]))
request = job.ImportRequest("killed", sys.argv[2], "train")
job.run(request, ImportsConfig(), DataConfig(shard_rows=5), store)
"""


def test_kill_9_leaves_an_import_that_goes_on(seaweed: ObjectStore, pages: Path) -> None:
    command = [sys.executable, "-c", KILLED, seaweed.config.model_dump_json()]
    ended = subprocess.run([*command, str(pages / "rows.jsonl")], capture_output=True, timeout=120)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    with pytest.raises(DataError, match="no finished split"):
        read_samples(seaweed, "killed", "train")
    imported(seaweed, pages / "rows.jsonl", "killed")
    assert content(seaweed, "killed") == content(seaweed, "plain")


def test_a_second_import_of_the_same_name_is_refused(seaweed: ObjectStore, pages: Path) -> None:
    with hold(seaweed, dataset_lease("shared"), "import", beat_s=0.1):
        with pytest.raises(JobRefused, match="or set another NAME"):
            imported(seaweed, pages / "rows.jsonl", "shared")
    assert not [*seaweed.list("datasets/shared/")]


def test_held_out_images_have_their_own_split(seaweed: ObjectStore, pages: Path) -> None:
    result = imported(seaweed, pages / "rows.jsonl", "split", held_out=0.4)
    train, test = (content(seaweed, "split", split) for split in ("train", "test"))
    assert result.counts.rows == {"train": len(train), "test": len(test)}
    assert len(train) + len(test) == ROWS + 1 and min(len(train), len(test)) > 3
    assert not {one[1] for one in train} & {one[1] for one in test}


def test_rows_of_the_evaluation_sets_are_left_out(seaweed: ObjectStore, pages: Path) -> None:
    rows = (pages / "rows.jsonl").read_text().splitlines()
    (pages / "test.jsonl").write_text("\n".join(rows[:6]))
    imported(seaweed, pages / "test.jsonl", "clean", "test")
    result = imported(seaweed, pages / "rows.jsonl", "clean")
    # The eight rows are the six rows of the test split, the other question about the image of row
    # 3, and the copy of row 4.
    assert result.counts.refused == {"in an evaluation set": 8, "image not found": 1}
    other = imported(seaweed, pages / "rows.jsonl", "other", against=("clean/test",))
    assert other.counts.rows == result.counts.rows == {"train": ROWS - 6}


def test_a_test_split_that_comes_later_cleans_the_training_split(
    seaweed: ObjectStore, pages: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = (pages / "rows.jsonl").read_text().splitlines()
    (pages / "later.jsonl").write_text("\n".join(rows[:6]))
    imported(seaweed, pages / "rows.jsonl", "late", against=())
    before = read_manifest(seaweed, "late", "train")
    imported(seaweed, pages / "later.jsonl", "late", "test")
    assert "left 7 rows of this split out of datasets/late/train/" in caplog.text
    train, test = (content(seaweed, "late", split) for split in ("train", "test"))
    assert len(train) == ROWS - 6 and not {one[1] for one in train} & {one[1] for one in test}
    after = read_manifest(seaweed, "late", "train")
    assert after["rows"] == len(train) and after["content"] != before["content"]
    refused = after["recipe"]["counts"]["refused"]
    assert refused == {"duplicate": 1, "image not found": 1, "in an evaluation set": 7}


def test_a_cleaning_that_stops_at_any_write_counts_each_row_once(
    seaweed: ObjectStore, pages: Path
) -> None:
    imported(seaweed, pages / "rows.jsonl", "swept", against=())
    key, held = "datasets/swept/train/manifest.json", Seen()
    manifest = seaweed.get(key)
    first = read_split(seaweed, "swept", "train")
    held.add_split(Split(first.samples[:6], first.columns[:6], ()))
    shards = {one: seaweed.get(one) for one in json.loads(manifest)["shards"]}
    for write in range(10):
        for name, data in {**shards, key: manifest}.items():
            seaweed.put(name, data)
        store = Stopping(seaweed.config)
        vars(store)["left"] = write
        try:
            removed = clean_train(store, "swept", held, "held")
        except StoreUnavailable:
            assert clean_train(seaweed, "swept", held, "held") == 7, write
        else:
            assert removed == 7
            break
        assert clean_train(seaweed, "swept", held, "held") == 0
        assert read_manifest(seaweed, "swept", "train")["recipe"]["counts"]["refused"]["held"] == 7
    assert write == 4, "three shards and the manifest are written"


@pytest.mark.parametrize("damage", ["file", "row"])
def test_a_cleaning_refuses_a_damaged_shard_before_it_writes(
    seaweed: ObjectStore, pages: Path, damage: str
) -> None:
    imported(seaweed, pages / "rows.jsonl", f"torn-{damage}", against=())
    held, split = Seen(), read_split(seaweed, f"torn-{damage}", "train")
    held.add_split(Split(split.samples[:1], split.columns[:1], ()))
    last = read_manifest(seaweed, f"torn-{damage}", "train")["shards"][-1]
    if damage == "file":
        torn, where = seaweed.get(last)[:-40], f"{last}: not a readable sample file"
    else:
        rows = pq.read_table(io.BytesIO(seaweed.get(last)))
        column = pa.array(["no hash", *rows["image"].to_pylist()[1:]])
        buffer, place = io.BytesIO(), rows.column_names.index("image")
        pq.write_table(rows.set_column(place, "image", column), buffer)
        torn, where = buffer.getvalue(), f"{last} row 0: image"
    seaweed.put(last, torn)
    keys = [info.key for info in seaweed.list(f"datasets/torn-{damage}/train/")]
    before = {key: seaweed.get(key) for key in keys}
    with pytest.raises(DataError, match=f"{where}.*restore the file, or delete datasets/torn-"):
        clean_train(seaweed, f"torn-{damage}", held, "held")
    assert {key: seaweed.get(key) for key in keys} == before


def sources(pages: Path, place: Path) -> Iterator[tuple[str, Path, dict[str, Any]]]:
    """Write the first ten rows as each kind of source. Yield the kind's name, path and settings."""
    rows = [json.loads(line) for line in (pages / "rows.jsonl").read_text().splitlines()[:10]]
    held = [
        {**row, "image": {"bytes": page, "path": None}} for row, page in with_pages(pages, rows)
    ]
    table = pa.Table.from_pylist(held)
    saved = place / "saved" / "train"
    saved.mkdir(parents=True)
    with pa.ipc.new_stream(str(saved / "data-00000-of-00001.arrow"), table.schema) as writer:
        writer.write_table(table)
    (place / "saved" / "dataset_dict.json").write_text('{"splits": ["train"]}')
    yield "saved", place / "saved", {}
    shards = place / "shards"
    shards.mkdir()
    for number, part in enumerate((table.slice(0, 6), table.slice(6))):
        pq.write_table(part, shards / f"train-{number:05d}-of-00002.parquet")
    yield "shards", shards, {}
    with tarfile.open(place / "web.tar", "w") as archive:
        for row, page in with_pages(pages, rows):
            for suffix, data in (("png", page), ("json", json.dumps(row | {"image": 0}).encode())):
                entry = tarfile.TarInfo(f"{row['id']:03d}.{suffix}")
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
    yield "tar", place / "web.tar", {"image": "png"}
    turns = [
        {
            "id": row["id"],
            "image": row["image"],
            "conversations": [
                {"from": "human", "value": f"<image>\n{row['question']}"},
                {"from": "gpt", "value": str(row["answer"])},
            ],
        }
        for row in rows
    ]
    (place / "llava.json").write_text(json.dumps(turns))
    yield "llava", place / "llava.json", {"root": str(pages)}
    lines = [f"{row['id']},{row['image']},{row['question']},{row['answer']}\n" for row in rows]
    (place / "rows.csv").write_text("".join(["id,image,question,answer\n", *lines]))
    yield "csv", place / "rows.csv", {"root": str(pages)}


def with_pages(pages: Path, rows: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], bytes]]:
    for row in rows:
        yield row, (pages / row["image"]).read_bytes()


def test_every_kind_of_source_gives_the_same_data_set(
    seaweed: ObjectStore, pages: Path, tmp_path: Path
) -> None:
    want = content(seaweed, "plain")[:10]
    for name, source, settings in sources(pages, tmp_path):
        result = imported(seaweed, source, f"as-{name}", **settings)
        assert (result.counts.refused, content(seaweed, f"as-{name}")) == ({}, want), name


def test_a_source_and_its_images_may_be_on_s3(seaweed: ObjectStore, pages: Path) -> None:
    seaweed.upload_directory(pages, "source/pages")
    top = f"{seaweed.config.url}/source/pages"
    imported(seaweed, f"{top}/rows.jsonl", "stored")
    assert content(seaweed, "stored") == content(seaweed, "plain")
    rows = [{"image": f"{top}/1.png", "question": "Why?", "answer": "1"}]
    rows += [{**rows[0], "image": address} for address in ("s3://other/1.png", "../secret")]
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    seaweed.put("source/pages/more/train.parquet", buffer.getvalue())
    result = imported(seaweed, f"{top}/more", "addressed", root=top)
    assert (result.counts.rows, result.counts.refused) == ({"train": 1}, {"image not found": 2})


def test_a_broken_file_costs_its_rows_only(
    seaweed: ObjectStore, pages: Path, tmp_path: Path
) -> None:
    rows = [json.loads(line) for line in (pages / "rows.jsonl").read_text().splitlines()[:10]]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    data = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "b.parquet").write_bytes(data[: len(data) // 2])
    result = imported(seaweed, tmp_path, "broken", root=str(pages))
    assert (result.counts.rows, result.counts.refused) == ({"train": 10}, {"unreadable": 1})
    assert result.counts.examples["unreadable"][0].startswith("b.parquet: the file cannot be read")
    (tmp_path / "a.parquet").unlink()
    with pytest.raises(DataError, match="no row can be read: the file cannot be read"):
        imported(seaweed, tmp_path, "nothing", root=str(pages))
    with pytest.raises(DataError, match="no row can be used; .*image not found.*missing"):
        (tmp_path / "c.jsonl").write_text(json.dumps({**rows[0], "image": "missing.png"}))
        imported(seaweed, tmp_path / "c.jsonl", "nothing")


def test_a_dry_run_shows_ten_rows_and_writes_nothing(seaweed: ObjectStore, pages: Path) -> None:
    request = job.ImportRequest("dry", str(pages / "rows.jsonl"), "train")
    text = job.dry_run(request, ImportsConfig(max_side=50), seaweed.config)
    assert text.count("question  Why?") == 10 and "50 x 38, shrunk from 64 x 48" in text
    assert "columns  image=image, question=question, answer=answer, sample_id=id" in text
    assert not [*seaweed.list("datasets/dry/")]
