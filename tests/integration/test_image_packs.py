"""Tests packed images in a real store: damage, missing packs, and writers that were killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from awares.errors import DataError
from awares_platform.config import PlatformConfig
from awares_platform.config.data import DataConfig
from awares_platform.data.dataset import (
    Images,
    PackWriter,
    ensure_mini,
    put_image,
    read_samples,
    write_samples,
)
from awares_platform.store import ObjectStore
from tests.integration.damaged_image import damage_image, place_of

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]
WRITER = """
import sys
from pathlib import Path
from awares_platform.config import PlatformConfig
from awares_platform.data.dataset import ensure_mini
from awares_platform.store import ObjectStore
config = PlatformConfig.model_validate_json(Path(sys.argv[1]).read_text())
ensure_mini(config.data, ObjectStore.from_config(config.store))
"""


def mini(name: str, cache: Path, **settings: int) -> DataConfig:
    sizes = {"train_samples": 12, "test_samples": 4} | settings
    return DataConfig.model_validate({"name": name, "image_cache": str(cache), **sizes})


def test_both_splits_are_read_from_one_pack_each(seaweed: ObjectStore, tmp_path: Path) -> None:
    data = mini("packed", tmp_path)
    ensure_mini(data, seaweed)
    images = Images.of(seaweed, data)
    both = [
        (split, sample)
        for split in ("train", "test")
        for sample in read_samples(seaweed, "packed", split)
    ]
    samples = [sample for _, sample in both]
    places = {place_of(seaweed, "packed", split, sample.image) for split, sample in both}
    assert len({place.pack for place in places}) == 2 and len(places) == 16
    assert all(images(sample.image).mode == "RGB" for sample in samples)
    assert not any(seaweed.exists(f"images/{sample.image}") for sample in samples)


def test_a_flipped_bit_costs_only_its_image_until_the_split_is_written_again(
    seaweed: ObjectStore, tmp_path: Path
) -> None:
    data = mini("flipped", tmp_path, seed=3)
    ensure_mini(data, seaweed)
    samples = read_samples(seaweed, "flipped", "train")
    broken = samples[5].image
    place = damage_image(seaweed, "flipped", "train", broken)
    images = Images.of(seaweed, data)
    text = f"image {broken} in {place.pack} is damaged: its bytes hash to .*write the split again"
    for _ in range(2):
        with pytest.raises(DataError, match=text):
            images(broken)
    assert all(images(one.image) for one in samples if one.image != broken)
    seaweed.delete("datasets/flipped/train/manifest.json")
    ensure_mini(data, seaweed)
    assert Images.of(seaweed, data)(broken).mode == "RGB"


def test_a_missing_pack_is_named(seaweed: ObjectStore, tmp_path: Path) -> None:
    data = mini("missing", tmp_path, seed=4)
    ensure_mini(data, seaweed)
    image = read_samples(seaweed, "missing", "test")[0].image
    place = place_of(seaweed, "missing", "test", image)
    seaweed.delete(place.pack)
    with pytest.raises(DataError, match=f"{image} is missing .*{place.pack}.*write the split"):
        Images.of(seaweed, data)(image)


def test_own_images_may_be_packed_or_single_and_serve_a_curated_split(
    seaweed: ObjectStore, tmp_path: Path
) -> None:
    data = mini("source", tmp_path, seed=5)
    ensure_mini(data, seaweed)
    samples = read_samples(seaweed, "source", "train")
    read = Images.of(seaweed, data).read
    packs, own = PackWriter(seaweed), mini("own", tmp_path / "own")
    written = [packs.put(read(samples[0].image)), put_image(seaweed, read(samples[1].image))]
    assert written == [samples[0].image, samples[1].image]
    write_samples(seaweed, own.curated, "train", samples[:2], packs=packs)
    images = Images.of(seaweed, own)
    assert [images.read(one.image) for one in samples[:2]] == [
        read(one.image) for one in samples[:2]
    ]


def test_a_killed_writer_leaves_no_split_and_the_next_one_finishes(
    seaweed: ObjectStore, tmp_path: Path
) -> None:
    data = mini("killed", tmp_path / "cache", seed=6, train_samples=900)
    config = PlatformConfig(store=seaweed.config, data=data)
    (tmp_path / "setup.json").write_text(config.model_dump_json())
    before = {info.key for info in seaweed.list("images/packs/")}
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'platform'}"}
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path / "setup.json")], env=environment
    )
    while {info.key for info in seaweed.list("images/packs/")} == before:
        assert writer.poll() is None
        time.sleep(0.1)
    writer.send_signal(signal.SIGKILL)
    assert writer.wait() == -signal.SIGKILL
    with pytest.raises(DataError, match="'killed' has no finished split 'train'"):
        read_samples(seaweed, "killed", "train")
    ensure_mini(data, seaweed)
    images = Images.of(seaweed, data)
    samples = read_samples(seaweed, "killed", "train")
    assert len(samples) == 900 and all(images.read(sample.image) for sample in samples)
