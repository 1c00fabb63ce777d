"""Encodes samples as parquet rows, and decodes files in which some rows are damaged.

A damaged file or row becomes a `Fault` instead of an exception. Page checksums detect flipped bits.
"""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from awares.evaluation.scorers import scorer
from awares.sample import Label, Sample

SCHEMA = pa.schema(
    [
        pa.field("sample_id", pa.string()),
        pa.field("image", pa.string()),
        pa.field("question", pa.string()),
        pa.field("answer", pa.string()),
        pa.field("kind", pa.string()),
        pa.field("evidence", pa.list_(pa.list_(pa.int32()))),
        pa.field("label", pa.string()),
        pa.field("crops", pa.list_(pa.string())),
        pa.field("further_answers", pa.list_(pa.string())),
        pa.field("scorer", pa.string()),
    ]
)
_LATER = ("further_answers", "scorer")
"""Columns that older files lack."""


@dataclass(frozen=True, slots=True)
class Fault:
    """An unusable row of the file with the store key `key`, and the reason.

    If `row` is None, the whole file is unusable.

    Example:
        Fault("datasets/awares-mini/train/part-00003.parquet", 17, "image: not a hex SHA-256")
    """

    key: str
    row: int | None
    reason: str

    def __str__(self) -> str:
        where = self.key if self.row is None else f"{self.key} row {self.row}"
        return f"{where}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Rows:
    """A decoded file: its usable samples, its faults and its metadata.

    For each sample, `columns` has a dict of the columns that are no fields of `Sample`.

    Example:
        Rows((sample,), ({"verdict": "2"},), (), {"fingerprint": "ab12"})
    """

    samples: tuple[Sample, ...]
    columns: tuple[dict[str, Any], ...]
    faults: tuple[Fault, ...]
    metadata: dict[str, str]


def encode_rows(
    samples: Sequence[Sample],
    columns: Mapping[str, Sequence[str] | Sequence[float]] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> bytes:
    """Encode `samples` as a parquet file with `metadata`.

    `columns` maps the names of additional columns to texts or floats, one for each sample.
    """
    table = pa.Table.from_pylist([_row(sample) for sample in samples], schema=SCHEMA)
    for name, values in (columns or {}).items():
        numbers = values and isinstance(values[0], float)
        table = table.append_column(
            name, pa.array(values, pa.float64() if numbers else pa.string())
        )
    table = table.replace_schema_metadata(dict(metadata or {}))
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
    return buffer.getvalue()


def _row(sample: Sample) -> dict[str, Any]:
    return {
        "sample_id": sample.sample_id,
        "image": sample.image,
        "question": sample.question,
        "answer": sample.answer,
        "kind": sample.kind,
        "evidence": [list(box) for box in sample.evidence],
        "label": None if sample.label is None else sample.label.value,
        "crops": list(sample.crops),
        "further_answers": list(sample.further_answers),
        "scorer": sample.scorer,
    }


def decode_rows(data: bytes, key: str) -> Rows:
    """Decode a file that `encode_rows` has written. Each `Fault` contains the store key `key`."""
    try:
        table = pq.read_table(io.BytesIO(data), page_checksum_verification=True)
        known = {field.name: _column(table, field) for field in SCHEMA}
        further = {name: table.column(name) for name in table.column_names if name not in known}
    except (pa.ArrowException, OSError, KeyError, UnicodeDecodeError) as error:
        reason = f"not a readable sample file ({_first_line(error)}); write it again"
        return Rows((), (), (Fault(key, None, reason),), {})
    samples, columns, faults = [], [], []
    for index, row in enumerate(plain_rows(pa.table({**known, **further}))):
        try:
            if isinstance(row, UnicodeDecodeError):
                raise row
            samples.append(_sample(row))
            columns.append({name: row[name] for name in further})
        except (ValueError, TypeError) as error:
            faults.append(Fault(key, index, str(error)))
    return Rows(tuple(samples), tuple(columns), tuple(faults), _metadata(table.schema))


def _column(table: pa.Table, field: pa.Field) -> pa.ChunkedArray | pa.Array:
    """Return a column. If all its values can be cast to the type of `field`, cast them."""
    if field.name in _LATER and field.name not in table.column_names:
        return pa.nulls(len(table), field.type)
    column = table.column(field.name)
    try:
        return column.cast(field.type)
    except pa.ArrowException:
        # Each row is checked later, so that one wrong value makes only its own row unusable.
        return column


def plain_rows(
    table: pa.Table | pa.RecordBatch,
) -> list[dict[str, Any] | UnicodeDecodeError]:
    """Return the table's rows. A row whose text is not UTF-8 is replaced by a UnicodeDecodeError.

    Reading a parquet file with Arrow does not check whether its texts are valid UTF-8.
    """
    try:
        return table.to_pylist()
    except UnicodeDecodeError:
        return [_plain_row(table.slice(index, 1)) for index in range(table.num_rows)]


def _plain_row(row: pa.Table | pa.RecordBatch) -> dict[str, Any] | UnicodeDecodeError:
    try:
        return row.to_pylist()[0]
    except UnicodeDecodeError as error:
        return error


def _metadata(schema: pa.Schema) -> dict[str, str]:
    entries = (schema.metadata or {}).items()
    return {
        name.decode(errors="replace"): value.decode(errors="replace")
        for name, value in entries
        if not name.startswith(b"ARROW:")
    }


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _sample(row: dict[str, Any]) -> Sample:
    for field in ("sample_id", "question", "answer"):
        if not _text(row, field).strip():
            raise ValueError(f"{field}: empty")
    image = _text(row, "image")
    if len(image) != 64 or not set(image) <= set("0123456789abcdef"):
        raise ValueError("image: not a hex SHA-256")
    return Sample(
        sample_id=row["sample_id"],
        image=image,
        question=row["question"],
        answer=row["answer"],
        kind=_text(row, "kind"),
        evidence=tuple(_box(box) for box in row["evidence"] or ()),
        label=None if row["label"] is None else _label(row["label"]),
        crops=_crops(row["crops"] or ()),
        further_answers=_answers(row["further_answers"] or ()),
        scorer=_scorer(_text(row, "scorer")),
    )


def _text(row: Mapping[str, Any], field: str) -> str:
    """Return the text in a field, or "" for null. Raises ValueError for any other value."""
    value = row[field]
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{field}: {value!r} is no text")
    return value or ""


def _answers(values: Any) -> tuple[str, ...]:
    if not all(isinstance(value, str) and value.strip() for value in values):
        raise ValueError(f"further_answers: {values} has an empty entry")
    return tuple(values)


def _scorer(name: str) -> str:
    if name:
        scorer(name)
    return name


def _box(box: Sequence[float] | None) -> tuple[int, int, int, int]:
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_whole, box)):
        raise ValueError(f"evidence: {box} is not four integers")
    left, top, right, bottom = map(int, box)
    if not (0 <= left < right and 0 <= top < bottom):
        raise ValueError(f"evidence: {box} is not left < right, top < bottom")
    return left, top, right, bottom


def _is_whole(edge: Any) -> bool:
    if isinstance(edge, bool) or not isinstance(edge, int | float):
        return False
    return math.isfinite(edge) and edge == int(edge)


def _label(value: Any) -> Label:
    try:
        return Label(value)
    except ValueError:
        raise ValueError(
            f"label: {value!r} is none of {[label.value for label in Label]}"
        ) from None


def _crops(values: Sequence[Any]) -> tuple[str, ...]:
    """Return the names of the crops that the policy should request for the sample.

    Raises ValueError for an empty name. A job later checks that its environment offers these crops.
    """
    if not all(isinstance(value, str) and value.strip() for value in values):
        raise ValueError(f"crops: {values} has an empty entry")
    return tuple(values)
