"""Tests `awares data` with a real store."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from awares.errors import DataError
from awares.sample import Label, Sample
from awares_platform.cli.data_sets import run
from awares_platform.config.data import DataConfig
from awares_platform.data.dataset import PackWriter, write_samples
from awares_platform.store import ObjectStore

pytestmark = pytest.mark.integration
DATA = DataConfig()


def fill(store: ObjectStore, name: str) -> None:
    packs, buffer = PackWriter(store), io.BytesIO()
    Image.new("RGB", (640, 480), "white").save(buffer, "PNG")
    digest = packs.put(buffer.getvalue())
    one = Sample("a", digest, "<b>Why?</b>", "So & so", "chart", ((10, 20, 300, 400),), Label.LR)
    two = Sample("b", digest, "When?", "7", "form", label=Label.HR, crops=("0", "5"))
    two = replace(two, further_answers=("seven",), scorer="docvqa")
    gone = Sample("c", "0" * 64, "Where?", "here", label=Label.LR)
    recipe = {"source": "pages.jsonl", "counts": {"refused": {"no answer": 3}}}
    write_samples(store, name, "train", [one, two, gone], recipe=recipe, packs=packs)
    write_samples(store, name, "test", [one])


def test_data_sets_are_listed_counted_shown_and_deleted(
    seaweed: ObjectStore, tmp_path: Path
) -> None:
    fill(seaweed, "first")
    fill(seaweed, "second")
    lines = run(seaweed, DATA, "ls", "", "", None).splitlines()
    assert [line.split()[1:] for line in lines[1:]] == [
        ["first/test"],
        ["first/train", "from", "pages.jsonl"],
        ["second/test"],
        ["second/train", "from", "pages.jsonl"],
    ]
    text = run(seaweed, DATA, "stats", "first", "train", None)
    for part in (
        "rows       3, and 0 unusable",
        "images     2; median 640 x 480",
        "answers    1.3 per row; 1 rows have evidence",
        "1  chart",
        "1  docvqa",
        "2 LR, 1 HR (33.3% HR)",
        "crops            1  0",
        "left out         3  no answer",
    ):
        assert part in text, text
    out = tmp_path / "page.html"
    assert "3 of 3 samples" in run(seaweed, DATA, "show", "first", "train", out)
    page = out.read_text("utf-8")
    assert page.count("data:image/jpeg") == 2 and "is missing" in page
    assert "&lt;b&gt;Why?" in page and "So &amp; so" in page and "7 | seven" in page
    assert "images stay" in run(seaweed, DATA, "rm", "first", "test", None)
    assert "first/train" in run(seaweed, DATA, "ls", "", "", None)
    run(seaweed, DATA, "rm", "first", "", None)
    assert [*seaweed.list("datasets/first/")] == [] and len([*seaweed.list("images/")]) > 0
    with pytest.raises(DataError, match="no finished data set first .*`awares data ls` lists all"):
        run(seaweed, DATA, "rm", "first", "", None)
    assert "second/train" in run(seaweed, DATA, "ls", "", "", None)
