"""Tests that all formats give the same records, and that only damaged records are lost."""

import csv
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from awares.errors import DataError
from awares_platform.config.store import StoreConfig
from awares_platform.data.intake.annotations import questions
from awares_platform.data.intake.place import LocalRoot, files
from awares_platform.data.intake.records import UnreadableRow, choose, of_split, read_rows

RECORDS = [{"file": f"{index}.png", "question": f"why {index}?"} for index in range(40)]
HUB = {"info": {"features": {"side": {"_type": "ClassLabel", "names": ["left", "right"]}}}}
STORE = StoreConfig()


def write(kind: str, path: Path, records: list[dict[str, Any]] = RECORDS) -> None:
    """Write the records as a file of the format `kind`."""
    table = pa.Table.from_pylist(records)
    if kind == "parquet":
        pq.write_table(table, path, row_group_size=7)
    elif kind == "arrow":
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table, max_chunksize=17)
    elif kind == "jsonl":
        path.write_text("".join(f"{json.dumps(record)}\n\n" for record in records))
    elif kind == "json":
        path.write_text(json.dumps({"version": 2, "data": records}))
    elif kind == "csv":
        with path.open("w", newline="", encoding="utf-8-sig") as file:
            writer = csv.DictWriter(file, list(records[0]))
            writer.writeheader()
            writer.writerows(records)
    else:
        with tarfile.open(path, "w") as archive:
            for index, record in enumerate(records):
                add(archive, f"shard/{index:03d}.json", json.dumps(record).encode())
                add(archive, f"shard/{index:03d}.png", b"pixels")


def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))


def read(path: Path, kind: str, skip: int = 0) -> list[Any]:
    [place] = files(str(path), STORE)
    return list(read_rows(place, kind, skip))


@pytest.mark.parametrize("kind", ["parquet", "arrow", "jsonl", "json", "csv", "tar"])
def test_every_format_gives_the_records_from_any_row_on(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"rows.{kind}"
    write(kind, path)
    extra = ("__key__", "png")
    for skip in (0, 1, 7, 16, 17, 18, 39, 40, 41):
        rows = read(path, kind, skip)
        plain = [{name: row[name] for name in row if name not in extra} for row in rows]
        assert plain == RECORDS[skip:]
    assert choose(files(str(path), STORE), "auto", "x")[0] == kind


@pytest.mark.parametrize("kind", ["parquet", "arrow", "json", "tar"])
def test_a_truncated_file_gives_its_whole_records_and_one_fault(kind: str, tmp_path: Path) -> None:
    whole, cut = tmp_path / f"whole.{kind}", tmp_path / f"cut.{kind}"
    write(kind, whole)
    data = whole.read_bytes()
    for end in (0, 3, len(data) // 3, len(data) // 2, len(data) - 30):
        cut.write_bytes(data[:end])
        rows = read(cut, kind)
        faults = [row for row in rows if isinstance(row, UnreadableRow)]
        records = [row for row in rows if not isinstance(row, UnreadableRow)]
        names = [record["file"] for record in records if "file" in record]
        assert names == [record["file"] for record in RECORDS[: len(names)]]
        assert len(records) < len(RECORDS) or kind == "tar"
        assert all(fault.ends for fault in faults) and len(faults) <= 1
        assert faults or kind in ("tar", "arrow")


def test_bad_lines_cost_themselves_only(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\nnot json\n[1]\n{"a": "\xff"}\n{"a": 2}\n' + b"[" * 100_000)
    rows = read(path, "jsonl")
    assert [row for row in rows if isinstance(row, dict)] == [{"a": 1}, {"a": 2}]
    assert [row.reason for row in rows if isinstance(row, UnreadableRow)] == [
        "the line is not JSON",
        "the line is no JSON object",
        "a text is not UTF-8",
        "the line is not JSON",
    ]


def test_bad_lines_of_a_table_cost_themselves_only(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_bytes(b'a\tb\n1\t"two\nlines"\n1\t2\t3\n\xff\t2\n3\t4\n')
    rows = read(path, "csv")
    assert [row for row in rows if isinstance(row, dict)] == [
        {"a": "1", "b": "two\nlines"},
        {"a": "3", "b": "4"},
    ]
    assert len(rows) == 4


def test_numbers_of_classes_become_their_names(tmp_path: Path) -> None:
    table = pa.table({"side": [0, 1, 7, None], "n": [0, 1, 2, 3]})
    table = table.replace_schema_metadata({"huggingface": json.dumps(HUB)})
    pq.write_table(table, tmp_path / "a.parquet")
    rows = read(tmp_path / "a.parquet", "parquet")
    assert [(row["side"], row["n"]) for row in rows] == [
        ("left", 0),
        ("right", 1),
        (7, 2),
        (None, 3),
    ]


def test_a_coco_file_gives_annotations_with_their_images(tmp_path: Path) -> None:
    content = {
        "images": [{"id": 7, "file_name": "a.png"}],
        "annotations": [
            {"image_id": 7, "question": "q", "answer": "1", "bbox": [1, 2, 3, 4]},
            {"image_id": 8, "question": "r", "answer": "2", "bbox": ["x", 2, 3, 4]},
        ],
        "categories": [{"id": 1}],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    first, second = read(tmp_path / "a.json", "json")
    assert first["image"] == "a.png" and first["boxes"] == [[1.0, 2.0, 4.0, 6.0]]
    assert second["image"] is None and second["bbox"] == ["x", 2, 3, 4]


def test_turns_become_questions_with_their_answers() -> None:
    llava = [
        {"from": "human", "value": "<image>\nWhy?"},
        {"from": "gpt", "value": "So."},
        {"from": "human", "value": "When?"},
        {"from": "human", "value": "Where?"},
        {"from": "gpt", "value": "Here."},
        "odd",
    ]
    chat = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Why?"}]},
        {"role": "assistant", "content": "So."},
    ]
    assert list(questions(llava)) == [("Why?", "So."), ("Where?", "Here.")]
    assert list(questions(chat)) == [("Why?", "So.")]
    assert list(questions([{"user": "Why?", "assistant": "So."}])) == [("Why?", "So.")]


def test_files_are_chosen_by_format_and_split(tmp_path: Path) -> None:
    names = ("data/train-00000-of-00002.parquet", "data/val-00000-of-00001.parquet", "README.md")
    for name in (*names, "dataset_info.json", ".cache/train-1.parquet"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    kind, places = choose(files(str(tmp_path), STORE), "auto", "x")
    assert (kind, [place.name for place in places]) == ("parquet", [*names[:2]])
    assert [place.name for place in of_split(places, "train", "x")] == [names[0]]
    with pytest.raises(DataError, match="no files of the split 'test', but of train, val"):
        of_split(places, "test", "x")
    with pytest.raises(DataError, match="no file of the format csv; the suffixes there are .json"):
        choose(files(str(tmp_path), STORE), "csv", "x")
    with pytest.raises(DataError, match="there is no such file"):
        files(str(tmp_path / "missing"), STORE)


@pytest.mark.parametrize(
    "path", ["../secret", "/etc/passwd", "link/secret", "a/../../secret", "missing", "a\0b", "dir"]
)
def test_no_path_leaves_the_root(path: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    root = tmp_path / "root"
    (root / "dir").mkdir(parents=True)
    (root / "link").symlink_to(tmp_path)
    (root / "good").write_bytes(b"good")
    with pytest.raises(DataError):
        LocalRoot(root).read(path)
    assert LocalRoot(root).read("dir/../good") == LocalRoot(root).read(f"{root}/good") == b"good"
