"""Reads the records of a source's files one by one. Only .json files are read as a whole.

A record is a dict with the columns of one row. Unreadable rows become an `UnreadableRow`.
"""

import csv
import io
import json
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from awares.errors import DataError
from awares_platform.data.intake.annotations import from_json
from awares_platform.data.intake.place import SourceFile
from awares_platform.data.rows import plain_rows

_BATCH_ROWS = 16
_MOST_CELL = 1 << 30
"""The largest number of characters in a cell of a CSV file."""


@dataclass(frozen=True, slots=True)
class UnreadableRow:
    """A row that cannot be read, and the reason.

    If `ends` is true, the rest of the file cannot be read, either.

    Example:
        UnreadableRow("the line is not JSON")
    """

    reason: str
    ends: bool = False


Row = dict[str, Any] | UnreadableRow


def read_rows(place: SourceFile, kind: str, skip: int = 0) -> Iterator[Row]:
    """Yield the rows of a file of the format `kind`, without the first `skip` rows.

    If the store fails, raise StoreError instead of yielding an UnreadableRow, because the file may
    be readable later.
    """
    position = 0
    try:
        with place.open() as file:
            for row in _READERS[kind](file, skip):
                position += 1
                yield row
    except _BROKEN as error:
        yield UnreadableRow(f"the file cannot be read ({_line(error)})", ends=True)


_BROKEN = (pa.ArrowException, OSError, ValueError, tarfile.TarError, csv.Error, EOFError)


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _parquet(file: BinaryIO, skip: int) -> Iterator[Row]:
    table = pq.ParquetFile(file)
    names = _class_names(table.schema_arrow)
    for group in range(table.num_row_groups):
        rows = table.metadata.row_group(group).num_rows
        if rows <= skip:
            skip -= rows
            continue
        batches = table.iter_batches(_BATCH_ROWS, row_groups=[group], use_threads=False)
        yield from _skipped(_of_batches(batches, names), skip)
        skip = 0


def _arrow(file: BinaryIO, skip: int) -> Iterator[Row]:
    """Yield the rows of an Arrow file, as `Dataset.save_to_disk` writes it."""
    try:
        reader: Any = pa.ipc.open_stream(file)
    except pa.ArrowInvalid:
        file.seek(0)
        whole = pa.ipc.open_file(file)
        reader = (whole.get_batch(index) for index in range(whole.num_record_batches))
        yield from _skipped(_of_batches(reader, _class_names(whole.schema)), skip)
        return
    for batch in reader:
        if batch.num_rows <= skip:
            skip -= batch.num_rows
            continue
        pieces = (
            batch.slice(start, _BATCH_ROWS) for start in range(skip, batch.num_rows, _BATCH_ROWS)
        )
        yield from _of_batches(pieces, _class_names(reader.schema))
        skip = 0


def _of_batches(
    batches: Iterator[pa.RecordBatch], names: dict[str, Sequence[str]]
) -> Iterator[Row]:
    for batch in batches:
        for row in plain_rows(batch):
            if isinstance(row, UnicodeDecodeError):
                yield UnreadableRow("a text is not UTF-8")
            else:
                yield {key: _named(value, names.get(key)) for key, value in row.items()}


def _named(value: Any, names: Sequence[str] | None) -> Any:
    known = names and isinstance(value, int) and 0 <= value < len(names)
    return names[value] if names and known else value


def _class_names(schema: pa.Schema) -> dict[str, Sequence[str]]:
    """Return the class names of each column that holds class indices.

    The library `datasets` writes these names into the metadata of its files.
    """
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {
            name: feature["names"]
            for name, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (KeyError, TypeError, AttributeError, ValueError):
        return {}


def _json_lines(file: BinaryIO, skip: int) -> Iterator[Row]:
    lines = (line for line in file if line.strip())
    for line in _skipped(lines, skip):
        try:
            record = json.loads(line)
        except UnicodeDecodeError:
            yield UnreadableRow("a text is not UTF-8")
        except (ValueError, RecursionError):
            yield UnreadableRow("the line is not JSON")
        else:
            yield (
                record if isinstance(record, dict) else UnreadableRow("the line is no JSON object")
            )


def _json(file: BinaryIO, skip: int) -> Iterator[Row]:
    try:
        content = json.load(file)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    for record in _skipped(from_json(content), skip):
        yield record if isinstance(record, dict) else UnreadableRow("the entry is no JSON object")


def _csv(file: BinaryIO, skip: int) -> Iterator[Row]:
    csv.field_size_limit(_MOST_CELL)
    text = io.TextIOWrapper(file, "utf-8-sig", errors="surrogateescape", newline="")
    first = text.readline()
    text.seek(0)
    delimiter = "\t" if first.count("\t") > first.count(",") else ","
    for record in _skipped(csv.DictReader(text, delimiter=delimiter, strict=True), skip):
        values = [value for value in record.values() if isinstance(value, str)]
        if None in record:
            yield UnreadableRow("the line has more cells than the header")
        elif any("\udc80" <= character <= "\udcff" for value in values for character in value):
            yield UnreadableRow("a text is not UTF-8")
        else:
            yield dict(record)


def _tar(file: BinaryIO, skip: int) -> Iterator[Row]:
    """Yield one record for each group of adjacent files that differ only in suffix.

    For example, 17.png and 17.json form one record.
    """
    yield from _skipped(_members(file), skip)


def _members(file: BinaryIO) -> Iterator[Row]:
    record: dict[str, Any] = {}
    with tarfile.open(fileobj=file, mode="r|*") as archive:
        for member in archive:
            content = archive.extractfile(member) if member.isfile() else None
            if content is None:
                continue
            path = PurePosixPath(member.name)
            stem, _, kind = path.name.partition(".")
            key = str(path.with_name(stem)) if stem else member.name
            if record and record["__key__"] != key:
                yield record
                record = {}
            record["__key__"] = key
            record |= _member(kind.lower(), content.read())
    if record:
        yield record


def _member(kind: str, data: bytes) -> dict[str, Any]:
    """Return the columns that one file of a tar archive adds to its record."""
    if kind == "json":
        try:
            content = json.loads(data)
        except (ValueError, RecursionError):
            return {}
        return content if isinstance(content, dict) else {kind: content}
    if kind in ("txt", "text", "cls", "id", "caption", "question", "answer", "query"):
        return {kind: data.decode("utf-8", "replace")}
    return {kind: data}


def _skipped(rows: Iterator[Any], skip: int) -> Iterator[Any]:
    for index, row in enumerate(rows):
        if index >= skip:
            yield row


_READERS: dict[str, Callable[[BinaryIO, int], Iterator[Row]]] = {
    "parquet": _parquet,
    "arrow": _arrow,
    "jsonl": _json_lines,
    "json": _json,
    "csv": _csv,
    "tar": _tar,
}
_SUFFIXES = {
    "parquet": "parquet",
    "pq": "parquet",
    "arrow": "arrow",
    "jsonl": "jsonl",
    "ndjson": "jsonl",
    "csv": "csv",
    "tsv": "csv",
    "tar": "tar",
    "json": "json",
}
_DESCRIPTIONS = ("dataset_info.json", "dataset_dict.json", "dataset_infos.json", "state.json")
"""Files of the library `datasets` that hold no rows."""


def choose(places: Sequence[SourceFile], kind: str, source: str) -> tuple[str, list[SourceFile]]:
    """Return the format of a source and the files that have it.

    `kind` is a format, or "auto". Raises DataError if no file has a suitable format.
    """
    found: dict[str, list[SourceFile]] = {}
    for place in places:
        suffix = PurePosixPath(place.name).suffix.lower().lstrip(".")
        if suffix in _SUFFIXES and PurePosixPath(place.name).name not in _DESCRIPTIONS:
            found.setdefault(_SUFFIXES[suffix], []).append(place)
    if kind != "auto" and len(places) == 1:
        return kind, list(places)
    if kind == "auto":
        # In a directory with several formats, choose the first format in _READERS.
        kind = next((one for one in _READERS if one in found), kind)
    if kind not in found:
        seen = ", ".join(sorted({PurePosixPath(place.name).suffix or "none" for place in places}))
        raise DataError(
            f"{source}: no file of {'a known' if kind == 'auto' else 'the'} format"
            f"{'' if kind == 'auto' else f' {kind}'}; the suffixes there are {seen}. "
            f"Formats are {', '.join(_READERS)}; name one with --format"
        )
    return kind, found[kind]


_SPLITS = ("train", "training", "validation", "valid", "val", "dev", "test", "testing")


def of_split(places: Sequence[SourceFile], split: str, source: str) -> list[SourceFile]:
    """Return the files of one split. Return all files if none is named after a split.

    A file is named after a split if its name, or the name of a folder, begins with the split.

    Raises DataError if files are named after other splits, but none after this split.
    """
    chosen = [place for place in places if _names(place.name, split)]
    if chosen or len(places) == 1:
        return chosen or list(places)
    others = [name for name in _SPLITS if any(_names(place.name, name) for place in places)]
    if others:
        raise DataError(
            f"{source} has no files of the split {split!r}, but of {', '.join(others)}; "
            "set imports.source_split"
        )
    return list(places)


def _names(path: str, split: str) -> bool:
    """Return whether a part of `path` is `split`, or `split` followed by "-", "_" or "."."""
    return any(
        part == split or part.startswith((f"{split}-", f"{split}_", f"{split}."))
        for part in path.split("/")
    )
