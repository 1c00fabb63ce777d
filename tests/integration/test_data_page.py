"""Tests that the script in platform/docs/data.md writes a data set that jobs can read."""

import re
from pathlib import Path

import pytest
from PIL import Image

from awares_platform.config import load
from awares_platform.data.dataset import Images, read_samples
from awares_platform.store import ObjectStore

PAGE = Path(__file__).parents[2] / "platform" / "docs" / "data.md"

pytestmark = pytest.mark.integration


def test_the_script_writes_both_splits(
    seaweed: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup, script = re.findall(r"^```\w+\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    named = setup.replace("s3://my-bucket/vision", "s3://awares/data-page")
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text(named.replace('"none"', f'"{seaweed.config.endpoint}"'))
    for index, name in enumerate(re.findall(r'"(page-\d+\.png)"', script)):
        Image.new("RGB", (64, 48), (0, 0, 9 * index)).save(name)

    exec(compile(script, str(PAGE), "exec"), {})

    config = load(Path("mine.toml"))
    store = ObjectStore.from_config(config.store)
    images = Images(store, str(tmp_path / "cache"))
    for split, answer in (("train", "4.20"), ("test", "2026-03-17")):
        [sample] = read_samples(store, config.data.name, split)
        assert (sample.sample_id, sample.answer) == (f"{split}/0", answer)
        assert images(sample.image).size == (64, 48)
