"""Tests that data sets in a real store are read back, and that damaged rows are skipped."""

import io
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from awares.errors import DataError, MissingData
from awares.sample import Sample
from awares_platform.config import PlatformConfig
from awares_platform.data.dataset import (
    Images,
    ensure_mini,
    put_image,
    read_manifest,
    read_samples,
    read_split,
    shard_key,
    write_samples,
)
from awares_platform.data.images import image_key
from awares_platform.data.rows import SCHEMA, encode_rows
from awares_platform.store import ObjectStore

pytestmark = pytest.mark.integration
HASH = "a" * 64


def samples(count: int) -> list[Sample]:
    return [
        Sample(f"s{index}", HASH, f"which digit {index}?", "7", evidence=((0, 0, 4, 4),))
        for index in range(count)
    ]


def test_a_split_is_read_back_in_order_and_up_to_a_limit(seaweed: ObjectStore) -> None:
    write_samples(seaweed, "order", "train", iter(samples(23)), shard_rows=5)
    assert len(read_manifest(seaweed, "order", "train")["shards"]) == 5
    assert read_samples(seaweed, "order", "train") == samples(23)
    assert read_samples(seaweed, "order", "train", limit=7) == samples(7)


def test_damage_is_counted_reported_and_skipped(
    seaweed: ObjectStore, caplog: pytest.LogCaptureFixture
) -> None:
    write_samples(seaweed, "damaged", "train", samples(20), shard_rows=5)
    keys = [shard_key("damaged", "train", index) for index in range(4)]
    table = pq.read_table(io.BytesIO(seaweed.get(keys[0])))
    rows = table.to_pylist()
    rows[2]["question"], rows[4]["evidence"] = None, [[9, 9, 1, 1]]
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), buffer)
    seaweed.put(keys[0], buffer.getvalue())
    seaweed.put(keys[1], seaweed.get(keys[1])[:100])
    seaweed.delete(keys[2])
    split = read_split(seaweed, "damaged", "train")
    assert [sample.sample_id for sample in split.samples] == [
        "s0",
        "s1",
        "s3",
        *[f"s{index}" for index in range(15, 20)],
    ]
    assert [(fault.key, fault.row) for fault in split.faults] == [
        (keys[0], 2),
        (keys[0], 4),
        (keys[1], None),
        (keys[2], None),
    ]
    assert "skipped 4 unusable rows or files" in caplog.text
    assert f"{keys[0]} row 2: question: empty" in caplog.text


def test_a_split_without_a_manifest_or_without_a_usable_row_is_an_error_with_a_remedy(
    seaweed: ObjectStore,
) -> None:
    seaweed.put(shard_key("unfinished", "train", 0), encode_rows(samples(3)))
    with pytest.raises(
        MissingData, match="'unfinished' has no finished split 'train'.*data.source"
    ):
        read_samples(seaweed, "unfinished", "train")
    with pytest.raises(MissingData, match="run `awares curate` first"):
        read_samples(seaweed, "nothing-curated", "train")
    write_samples(
        seaweed, "hopeless", "train", [replace(sample, question=" ") for sample in samples(2)]
    )
    with pytest.raises(DataError, match="no usable row"):
        read_samples(seaweed, "hopeless", "train")
    seaweed.put("datasets/broken/train/manifest.json", b"{")
    with pytest.raises(DataError, match="is not a manifest") as damaged:
        read_samples(seaweed, "broken", "train")
    assert damaged.type is DataError, "no other job writes this manifest again"


def test_mini_is_written_once_and_again_when_its_recipe_changes(
    seaweed: ObjectStore, tmp_path: Path
) -> None:
    config = PlatformConfig.model_validate(
        {"data": {"name": "mini-once", "train_samples": 12, "test_samples": 6, "shard_rows": 5}}
    )
    ensure_mini(config.data, seaweed)
    before = {info.key: info.etag for info in seaweed.list("datasets/mini-once/")}
    train, test = (read_samples(seaweed, "mini-once", split) for split in ("train", "test"))
    assert (len(train), len(test)) == (12, 6)
    image = Images(seaweed, tmp_path, splits=[("mini-once", "train")])(train[0].image)
    assert image.mode == "RGB" and all(
        box[2] <= image.width and box[3] <= image.height for box in train[0].evidence
    )
    ensure_mini(config.data, seaweed)
    assert {info.key: info.etag for info in seaweed.list("datasets/mini-once/")} == before
    more = config.model_copy(update={"data": config.data.model_copy(update={"train_samples": 13})})
    ensure_mini(more.data, seaweed)
    assert (
        read_samples(seaweed, "mini-once", "train")[:12] == train
        and len(read_samples(seaweed, "mini-once", "train")) == 13
    )


def test_an_image_is_stored_once_and_a_damaged_one_is_named(
    seaweed: ObjectStore, tmp_path: Path
) -> None:
    first = put_image(seaweed, b"some bytes")
    etag = seaweed.head(image_key(first)).etag
    assert (
        put_image(seaweed, b"some bytes") == first and seaweed.head(image_key(first)).etag == etag
    )
    seaweed.put(image_key(first), b"other bytes")
    with pytest.raises(DataError, match=f"images/{first} is damaged"):
        Images(seaweed, tmp_path)(first)
