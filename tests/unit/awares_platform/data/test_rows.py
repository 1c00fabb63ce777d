"""Tests that sample rows can be encoded and decoded, and that each damaged row becomes a fault."""

import io
import random

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from awares.crops import CropId
from awares.sample import Label, Sample
from awares_platform.data.dataset import distinct
from awares_platform.data.rows import SCHEMA, Fault, decode_rows, encode_rows

HASH = "0123456789abcdef" * 4
text = st.text(min_size=1, max_size=40).filter(
    lambda value: value.strip() != "" and value.isprintable()
)
boxes = st.tuples(*[st.integers(0, 500)] * 2, *[st.integers(501, 900)] * 2)
samples = st.builds(
    Sample,
    text,
    st.just(HASH),
    text,
    text,
    st.sampled_from(["", "digit on"]),
    st.lists(boxes, max_size=3).map(tuple),
    st.sampled_from([None, *Label]),
    st.lists(st.sampled_from(list(CropId)), max_size=2, unique=True).map(tuple),
    st.lists(text, max_size=2).map(tuple),
    st.sampled_from(["", "chartqa"]),
)


def raw(**changes: object) -> dict[str, object]:
    """Return a valid row in which `changes` replaces some columns."""
    row = {
        "sample_id": "a",
        "image": HASH,
        "question": "q",
        "answer": "1",
        "kind": "",
        "evidence": [[0, 0, 4, 4]],
        "label": "HR",
        "crops": ["0"],
        "further_answers": [],
        "scorer": "",
    }
    return row | changes


def parquet(rows: list[dict[str, object]], schema: pa.Schema = SCHEMA) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), buffer)
    return buffer.getvalue()


@settings(deadline=None)
@given(st.lists(samples, max_size=5))
def test_rows_survive_a_round_trip(batch: list[Sample]) -> None:
    decoded = decode_rows(
        encode_rows(batch, {"verdict": ["FULL"] * len(batch)}, {"fingerprint": "ab"}), "key"
    )
    assert list(decoded.samples) == batch
    assert list(decoded.columns) == [{"verdict": "FULL"}] * len(batch)
    assert decoded.faults == () and decoded.metadata == {"fingerprint": "ab"}


def test_bad_rows_are_named_and_the_good_ones_kept() -> None:
    rows = [
        raw(),
        raw(sample_id=""),
        raw(image="../etc/passwd"),
        raw(question=None),
        raw(evidence=[[4, 4, 4, 8]]),
        raw(evidence=[[0, 1]]),
        raw(label="MAYBE"),
        raw(crops=["0", ""]),
        raw(sample_id="b", label=None, crops=None, evidence=None, kind=None),
    ]
    decoded = decode_rows(parquet(rows), "datasets/x/part-0.parquet")
    assert [sample.sample_id for sample in decoded.samples] == ["a", "b"]
    assert [fault.row for fault in decoded.faults] == [1, 2, 3, 4, 5, 6, 7]
    assert [fault.reason.split(":")[0] for fault in decoded.faults] == [
        "sample_id",
        "image",
        "question",
        "evidence",
        "evidence",
        "label",
        "crops",
    ]
    assert str(decoded.faults[0]) == "datasets/x/part-0.parquet row 1: sample_id: empty"


def test_one_odd_value_costs_its_row_and_not_its_file() -> None:
    """Check five columns that hold valid and invalid values.

    The values of three columns have another type than in the schema.
    """
    odd: dict[str, tuple[list[object], pa.DataType]] = {
        "evidence": (
            [[[0.0, 0.0, 4.0, 4.0]], [[0.5, 0.0, 4.0, 4.0]], [[float("nan"), 0.0, 4.0, 4.0]]],
            pa.list_(pa.list_(pa.float64())),
        ),
        "label": ([["HR"], ["LR"], None], pa.list_(pa.string())),
        "crops": ([[["0"]], [["1"]], None], pa.list_(pa.list_(pa.string()))),
        "scorer": (["exact", "charta", "chartqa"], pa.string()),
        "further_answers": ([["one"], [""], None], pa.list_(pa.string())),
    }
    kept = {}
    for name, (values, kind) in odd.items():
        rows = [raw(sample_id=str(index)) for index in range(3)]
        table = pa.Table.from_pylist(rows, schema=SCHEMA)
        place = SCHEMA.get_field_index(name)
        buffer = io.BytesIO()
        pq.write_table(table.set_column(place, name, pa.array(values, kind)), buffer)
        decoded = decode_rows(buffer.getvalue(), "k")
        assert len(decoded.samples) + len(decoded.faults) == 3
        assert all(fault.reason.startswith(name) for fault in decoded.faults), decoded.faults
        kept[name] = [sample.sample_id for sample in decoded.samples]
    assert kept == {
        "evidence": ["0"],
        "label": ["2"],
        "crops": ["2"],
        "scorer": ["0", "2"],
        "further_answers": ["0", "2"],
    }


def test_files_without_the_later_columns_are_read() -> None:
    older = SCHEMA.remove(SCHEMA.get_field_index("scorer"))
    older = older.remove(older.get_field_index("further_answers"))
    row = {name: value for name, value in raw().items() if name in older.names}
    [sample] = decode_rows(parquet([row], older), "k").samples
    assert sample.answers == ("1",) and sample.scorer == ""
    assert repr(sample).endswith("crops=('0',))"), "digests of older samples must not change"


def test_samples_that_share_an_id_get_distinct_ids() -> None:
    samples = [Sample(name, HASH, "q", "1") for name in ("a", "a", "a~2", "b", "a")]
    assert [one.sample_id for one in distinct(samples)] == ["a", "a~2", "a~2~2", "b", "a~3"]


def test_text_that_is_not_utf8_costs_its_row_only() -> None:
    """Arrow reads invalid UTF-8 without an error. The conversion to a Python string raises one."""
    table = pa.Table.from_pylist([raw(sample_id=name) for name in "abc"], schema=SCHEMA)
    for column in ("question", "verdict"):
        spoilt = pa.array([b"q", b"\xff\xfe", b"q"], pa.binary()).view(pa.string())
        kept = table.drop_columns([column]) if column in SCHEMA.names else table
        buffer = io.BytesIO()
        pq.write_table(
            kept.append_column(column, spoilt).replace_schema_metadata({b"\xff": b"\xff"}), buffer
        )
        decoded = decode_rows(buffer.getvalue(), "k")
        assert [sample.sample_id for sample in decoded.samples] == ["a", "c"]
        assert [(fault.row, "utf-8" in fault.reason) for fault in decoded.faults] == [(1, True)]


def test_two_thousand_corrupt_files_are_faults_and_never_raise() -> None:
    data = encode_rows(
        [Sample(f"s{i}", HASH, f"which digit {i}?", str(i % 10)) for i in range(50)],
        {"verdict": ["FULL"] * 50},
    )
    want, rng, faulty = decode_rows(data, "k").samples, random.Random(0), 0
    for _ in range(2000):
        broken = bytearray(data)
        for _ in range(rng.choice((1, 1, 3, 8))):
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        decoded = decode_rows(
            bytes(broken[: rng.choice((len(data), len(data), rng.randrange(len(data))))]), "k"
        )
        assert decoded.faults or decoded.samples == want
        faulty += bool(decoded.faults)
    assert faulty > 1500


def test_a_file_that_is_none_is_one_fault() -> None:
    good = encode_rows([Sample("a", HASH, "q", "1")])
    missing = SCHEMA.remove(SCHEMA.get_field_index("image"))
    row = raw()
    del row["image"]
    for data in (b"", b"not parquet", good[: len(good) // 2], parquet([row], missing)):
        decoded = decode_rows(data, "k")
        assert decoded.samples == () and len(decoded.faults) == 1 and decoded.faults[0].row is None


def test_a_flipped_bit_in_a_page_is_a_fault_and_not_another_question() -> None:
    """Check that a flipped bit gives a fault, or does not change the samples.

    A checksum protects the data of a page. A flipped bit in a header may make the file unreadable.
    """
    data = encode_rows(
        [Sample(f"s{i}", HASH, f"which digit {i}?", str(i % 10)) for i in range(200)]
    )
    want = decode_rows(data, "k").samples
    footer = int.from_bytes(data[-8:-4], "little") + 8
    for position in range(4, len(data) - footer, 97):
        broken = bytearray(data)
        broken[position] ^= 0x10
        decoded = decode_rows(bytes(broken), "k")
        assert decoded.faults or decoded.samples == want


def test_fault_of_a_file_has_no_row() -> None:
    assert str(Fault("k", None, "missing")) == "k: missing"
