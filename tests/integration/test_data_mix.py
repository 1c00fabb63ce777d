"""Tests that data sets are mixed by weights and caps, without the rows of their test splits."""

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from awares.errors import ConfigError, DataError
from awares.sample import Sample
from awares_platform.config.data import DataConfig, MixPart
from awares_platform.data.dataset import Images, PackWriter, read_samples, write_samples
from awares_platform.data.intake.mix import mix, shares
from awares_platform.store import ObjectStore


def test_shares_follow_weights_up_to_the_caps() -> None:
    parts = {"a": MixPart(weight=2), "b": MixPart(most=20), "c": MixPart(weight=1)}
    assert shares(80, parts, {"a": 100, "b": 100, "c": 100}) == {"a": 40, "b": 20, "c": 20}
    assert shares(100, parts, {"a": 100, "b": 100, "c": 5}) == {"a": 75, "b": 20, "c": 5}
    assert shares(999, parts, {"a": 1, "b": 100, "c": 0}) == {"a": 1, "b": 20, "c": 0}
    assert (
        sum(shares(10, {name: MixPart() for name in "abc"}, dict.fromkeys("abc", 9)).values()) == 10
    )


@given(st.integers(0, 500), st.lists(st.tuples(st.integers(1, 9), st.integers(0, 99)), min_size=1))
def test_shares_use_all_that_there_is(most: int, parts: list[tuple[int, int]]) -> None:
    named = {str(index): MixPart(weight=weight) for index, (weight, _) in enumerate(parts)}
    rows = {str(index): count for index, (_, count) in enumerate(parts)}
    given_rows = shares(most, named, rows)
    assert sum(given_rows.values()) == min(most, sum(rows.values()))
    assert all(0 <= given_rows[name] <= rows[name] for name in rows)


def fill(store: ObjectStore, name: str, split: str, shades: range) -> None:
    packs, samples = PackWriter(store), []
    for shade in shades:
        buffer = io.BytesIO()
        Image.new("RGB", (32, 32 + shade)).save(buffer, "PNG")
        digest = packs.put(buffer.getvalue())
        samples.append(Sample(str(shade), digest, f"Why {name}?", str(shade), scorer="docvqa"))
    write_samples(store, name, split, samples, packs=packs)


@pytest.mark.integration
def test_a_mix_has_rows_and_images_of_all_parts(seaweed: ObjectStore, tmp_path: Path) -> None:
    fill(seaweed, "red", "train", range(20))
    fill(seaweed, "red", "test", range(30, 34))
    fill(seaweed, "blue", "train", range(31, 51))
    parts = {"red": {"weight": 3.0}, "blue": {"most": 4}}
    data = DataConfig(name="mixed", source="store", train_samples=16, mix=parts)
    test, train = mix(seaweed, data)
    assert (test.rows, train.rows) == ({"red": 4}, {"red": 12, "blue": 4})
    assert str(train) == "train: 16 rows (12 of red, 4 of blue); 3 train rows are in a test split"
    samples = read_samples(seaweed, "mixed", "train")
    assert {one.sample_id.split("/")[0] for one in samples} == {"red", "blue"}
    assert {one.scorer for one in samples} == {"docvqa"}
    held = {one.image for one in read_samples(seaweed, "mixed", "test")}
    assert not held & {one.image for one in samples} and len(held) == 4
    images = Images.of(seaweed, data.model_copy(update={"image_cache": str(tmp_path)}))
    assert [images(one.image).height for one in samples] == [
        32 + int(one.answer) for one in samples
    ]
    assert [*mix(seaweed, data)][1].rows == train.rows
    assert read_samples(seaweed, "mixed", "train") == samples, "the same seed draws the same rows"
    with pytest.raises(DataError, match="'green' has no finished split 'train'"):
        mix(seaweed, data.model_copy(update={"mix": {"green": {}}}))


def test_wrong_parts_are_refused(seaweed: ObjectStore) -> None:
    for parts in ({}, {"mixed": {}}):
        with pytest.raises(ConfigError, match="data.mix must name the data sets to mix"):
            mix(seaweed, DataConfig(name="mixed", mix=parts))
    for part in ({"weight": 0}, {"wieght": 1.0}, {"most": 0}, 3):
        with pytest.raises(ValidationError, match="mix"):
            DataConfig(mix={"a": part})
