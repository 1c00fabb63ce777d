"""Tests that records become samples, and that the refusal of an unusable record has a reason."""

import base64
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from awares.errors import ConfigError, DataError
from awares.images import decode
from awares.sample import Sample
from awares_platform.config import load
from awares_platform.config.imports import ImportsConfig
from awares_platform.data.intake.columns import choose_columns
from awares_platform.data.intake.evidence import read_boxes
from awares_platform.data.intake.hub import downloaded
from awares_platform.data.intake.picture import PictureFinder, perceptual_hash, stored_form
from awares_platform.data.intake.place import LocalRoot
from awares_platform.data.intake.reading import Draft, RecordReader, RefusedRow, accepted
from awares_platform.data.intake.refusal import Refused
from awares_platform.data.intake.seen import NEAR, Seen


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def page(size: tuple[int, int] = (80, 60), seed: int = 0) -> Image.Image:
    """Return a page with random grey tiles of about 8 x 8 pixels."""
    tones = np.random.default_rng(seed).integers(0, 255, (size[1] // 8 + 1, size[0] // 8 + 1))
    tiles = Image.fromarray(tones.astype(np.uint8)).resize(size, Image.Resampling.NEAREST)
    return tiles.convert("RGB")


PNG = encoded(page())


def read(
    record: dict[str, Any], root: Path = Path("."), **settings: Any
) -> list[Draft | RefusedRow]:
    """Return the samples and refusals of a record.

    If the record lacks an image, a question or an answer, a default is used.
    """
    config = ImportsConfig(**settings)
    full = {"image": PNG, "question": "Why?", "answers": "7"} | record
    columns = choose_columns(config, [full])
    finder = PictureFinder(LocalRoot(root), config.hosts)
    return RecordReader(columns, config, finder).read(full, "a.jsonl", 3)


def sample(record: dict[str, Any], **settings: Any) -> Sample:
    [draft] = read(record, **settings)
    assert isinstance(draft, Draft), draft
    return draft.sample


def reason(record: dict[str, Any], root: Path = Path("."), **settings: Any) -> str:
    [refusal] = read(record, root, **settings)
    assert isinstance(refusal, RefusedRow), refusal
    assert refusal.where == "a.jsonl row 3"
    return f"{refusal.reason}: {refusal.detail}"


def test_images_come_as_bytes_tables_data_urls_and_paths(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "1.png").write_bytes(PNG)
    url = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    for value in (PNG, {"bytes": PNG, "path": None}, {"path": "p/1.png"}, url, [PNG], "p/1.png"):
        [draft] = read({"image": value}, tmp_path)
        assert isinstance(draft, Draft) and draft.picture.data == PNG


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"image": None}, "no image: the image column holds None"),
        ({"image": b""}, "no image"),
        ({"image": 7}, "no image"),
        ({"image": [PNG, PNG]}, "several images: the row has 2 images"),
        ({"image": "../a.png"}, "image not found: ../a.png leads out of"),
        ({"image": "s3://bucket/a.png"}, "image not found"),
        ({"image": "data:text/html,x"}, "image not found: expected data:image"),
        ({"image": "https://images.test/a"}, "name its host in imports.hosts"),
        ({"image": PNG[:200]}, "image cannot be decoded: image: truncated or corrupt"),
        ({"image": b"%PDF-1.7"}, "image cannot be decoded: image: a PDF document"),
        ({"image": encoded(Image.new("1", (30_000, 10)))}, "image too narrow: 30000 x 10"),
        (
            {"image": encoded(Image.new("1", (20_000, 20_000)))},
            "cannot be decoded.*too many pixels",
        ),
        ({"question": " "}, "no question"),
        ({"question": 7}, "no question"),
        ({"answers": []}, "no answer"),
        ({"answers": ["", None]}, "no answer"),
        ({"answers": "\ud800"}, "unreadable"),
        ({"boxes": [0, 0, 4]}, "wrong box"),
        ({"conversations": [{"from": "human", "value": "Why?"}]}, "no question"),
    ],
)
def test_an_unusable_record_is_refused_with_its_reason(record: dict[str, Any], words: str) -> None:
    assert re.search(words, reason(record), re.DOTALL), reason(record)


def test_a_host_must_be_named_and_public() -> None:
    url = {"image": "http://localhost:9/a"}
    assert "does not resolve to public" in reason(url, hosts=("localhost",))
    assert "not fetched from localhost; allowed: images.test" in reason(url, hosts=("images.test",))


def test_texts_in_any_script_are_kept() -> None:
    for text in (
        "\u0645\u0631\u062d\u0628\u0627 \u05e9\u05dc\u05d5\u05dd",
        "\u6771\u4eac \U0001f600",
    ):
        assert sample({"question": text, "answers": [text]}).answers == (text,)


@pytest.mark.parametrize(
    ("value", "answers"),
    [
        ("7", ["7"]),
        (7, ["7"]),
        (True, ["yes"]),
        (["b", "a", "a."], ["a", "b"]),
        (["nokia", "Nokia", "NOKIA phone"], ["nokia", "NOKIA phone"]),
        ('["a", "b"]', ["a", "b"]),
        ("[a]", ["[a]"]),
        ([{"answer": "x", "answer_id": 1}], ["x"]),
        ([".5", "5"], [".5", "5"]),
    ],
)
def test_the_most_frequent_answer_comes_first(value: Any, answers: list[str]) -> None:
    assert accepted(value) == answers


def test_ids_kinds_and_scorers_come_from_columns() -> None:
    found = sample(
        {"question_id": 17, "question_types": ["table", "form"], "how": "docvqa"},
        scorer="exact",
        scorer_column="how",
    )
    assert (found.sample_id, found.kind, found.scorer) == ("17", "table, form", "docvqa")
    assert sample({}).sample_id == "a.jsonl row 3" and sample({}).scorer == ""
    assert reason({"how": "bleu"}, scorer_column="how").startswith("unknown scorer")


def test_each_turn_is_a_sample_of_its_own() -> None:
    turns = [
        {"from": "human", "value": "<image>\nWhy?"},
        {"from": "gpt", "value": "So."},
        {"from": "human", "value": "When?"},
        {"from": "gpt", "value": ""},
        {"from": "human", "value": "Where?"},
        {"from": "gpt", "value": "Here."},
    ]
    record = {"id": "x", "image": PNG, "conversations": turns}
    columns = choose_columns(ImportsConfig(), [record])
    reader = RecordReader(columns, ImportsConfig(), PictureFinder(LocalRoot(Path()), ()))
    first, second, third = reader.read(record, "a.json", 0)
    assert isinstance(first, Draft) and isinstance(third, Draft) and isinstance(second, RefusedRow)
    assert [(one.sample.sample_id, one.sample.question) for one in (first, third)] == [
        ("x/0", "Why?"),
        ("x/2", "Where?"),
    ]


def test_a_wrong_column_is_refused_with_the_columns_there_are() -> None:
    record = {"img": PNG, "problem": "Why?", "n": 3, "empty": None}
    with pytest.raises(ConfigError, match=r"hold the answer: name it with --answer. The columns"):
        choose_columns(ImportsConfig(), [record])
    message = r"no column 'promblem'.*nearest is problem.*img \(bytes\), problem \(text\), n \(num"
    with pytest.raises(ConfigError, match=message):
        choose_columns(ImportsConfig(question="promblem", answer="n"), [record])
    deep = {"image": PNG, "meta": {"q": "Why?", "a": "7"}}
    settings = ImportsConfig(question="meta.q", answer="meta.a")
    reader = RecordReader(
        choose_columns(settings, [deep]), settings, PictureFinder(LocalRoot(Path()), ())
    )
    [draft] = reader.read(deep, "a", 0)
    assert isinstance(draft, Draft) and draft.sample.question == "Why?"


@pytest.mark.parametrize(
    ("value", "settings", "want"),
    [
        ([10, 20, 30, 40], {}, [(5, 10, 15, 20)]),
        ([[0.5, 0, 4, 4], [90, 90, 500, 500]], {}, [(0, 0, 2, 2), (45, 45, 100, 50)]),
        ("[10, 20, 30, 40]", {}, [(5, 10, 15, 20)]),
        ([10, 20, 20, 20], {"box_form": "sizes"}, [(5, 10, 15, 20)]),
        ([0.1, 0.2, 0.3, 0.5], {"box_units": "relative"}, [(10, 10, 30, 25)]),
        ([100, 200, 300, 500], {"box_units": "thousandths"}, [(10, 10, 30, 25)]),
        ([], {}, []),
        (None, {}, []),
        ("", {}, []),
    ],
)
def test_boxes_become_pixels_of_the_stored_image(value: Any, settings: Any, want: Any) -> None:
    """Check the boxes of an image of 200 x 100 pixels, which is stored with 100 x 50 pixels."""
    found = read_boxes(value, ImportsConfig(**settings), (200, 100), (100, 50))
    assert list(found) == want


@pytest.mark.parametrize(
    ("value", "units"),
    [
        ([0.1, 0.2, 0.3, 0.4], "pixels"),
        ([10, 20, 30, 40], "relative"),
        ([10, 20, 1700, 2200], "thousandths"),
        ([30, 20, 10, 40], "pixels"),
        ([300, 0, 400, 50], "pixels"),
        ([0, 0, float("nan"), 4], "pixels"),
        ([0, 0, float("inf"), 4], "pixels"),
        ([-9, -9, -1, -1], "pixels"),
        ([0, 0, "4", 4], "pixels"),
        ([[0, 0, 4, 4], [1, 2]], "pixels"),
        ("not json", "pixels"),
        (7, "pixels"),
    ],
)
def test_a_box_that_is_surely_wrong_is_refused(value: Any, units: Any) -> None:
    with pytest.raises(Refused, match="wrong box"):
        read_boxes(value, ImportsConfig(box_units=units), (200, 100), (100, 50))


def test_a_stored_file_that_needs_no_change_keeps_its_bytes() -> None:
    for data in (PNG, encoded(page(), "JPEG"), encoded(page().convert("L"))):
        assert stored_form(data, 2000).data == data


@pytest.mark.parametrize(
    "data",
    [
        encoded(page().convert("CMYK"), "JPEG"),
        encoded(page().convert("P")),
        encoded(page().convert("RGBA")),
        encoded(page(), "AVIF"),
        encoded(page(), "WEBP", lossless=True),
        encoded(page().convert("CMYK"), "TIFF"),
        encoded(Image.fromarray(np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)), "TIFF"),
        encoded(Image.fromarray(np.arange(0, 65_536, 1024, dtype=np.uint16).reshape(8, 8))),
        encoded(page(), icc_profile=bytes(3_000_000)),
    ],
)
def test_every_other_file_becomes_the_image_that_it_shows(data: bytes) -> None:
    stored = stored_form(data, 2000)
    with Image.open(io.BytesIO(stored.data)) as file:
        assert (file.format, file.mode) in (("PNG", "RGB"), ("JPEG", "RGB"))
    shown = np.asarray(decode(data), dtype=int)
    assert np.abs(np.asarray(decode(stored.data), dtype=int) - shown).mean() < 2
    assert shown.std() > 20


def test_a_turned_photo_is_stored_upright_and_large_images_are_shrunk() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    turned = stored_form(encoded(page((80, 40)), "JPEG", exif=exif), 2000)
    assert turned.size == turned.original == (40, 80)
    assert Image.open(io.BytesIO(turned.data)).size == (40, 80)
    shrunk = stored_form(encoded(page((90, 3000))), 1000)
    assert (shrunk.size, shrunk.original) == ((30, 1000), (90, 3000))


def test_hashes_tell_pages_apart_and_not_their_sizes_or_formats() -> None:
    first = perceptual_hash(page((800, 600)))
    again = perceptual_hash(
        decode(encoded(page((800, 600)).resize((400, 300)), "JPEG", quality=80))
    )
    assert (first ^ again).bit_count() <= NEAR
    assert (first ^ perceptual_hash(page((800, 600), seed=1))).bit_count() > 5 * NEAR


def test_rows_are_the_same_if_texts_and_looks_are() -> None:
    seen, one = Seen(), Sample("a", "0" * 64, "What total?", "4.20", further_answers=("4.2",))
    seen.add(one, 0b1111)
    other = Sample("b", "1" * 64, " what  TOTAL?", "4.2", further_answers=("4.20.",))
    assert seen.has(other, 0b1100) and not seen.has(other, 2**200 - 1)
    assert not seen.has(Sample("c", "1" * 64, "What total?", "4.20"), 0b1111)
    assert seen.has_image("0" * 64) and not seen.has_image("1" * 64)


PUBLISHED = {
    "chartqa": {"query": "How many?", "label": ["14"], "human_or_machine": "human"},
    "docvqa": {
        "questionId": "337",
        "question": "What is the date?",
        "question_types": ["handwritten", "form"],
        "docId": 279,
        "answers": ["1/8/93"],
        "data_split": "val",
    },
    "textvqa": {
        "image_id": "003a8ae2ef43b901",
        "question_id": 34602,
        "question": "What is the brand?",
        "image_classes": ["Cassette deck"],
        "answers": ["nous les gosses", "dakota", "dakota", "clos culombu"],
    },
    "visionthink": {
        "doc_id": "chartqa_17",
        "problem": "How many bars?",
        "solution": "<answer>14</answer>",
        "info": {"id": "17", "tgt_height": 600, "tgt_width": 800, "use_tool": False},
        "original_answer": "14",
        "data_source": "chartqa",
    },
}


@pytest.mark.parametrize(
    ("name", "answers", "kind"),
    [
        ("chartqa", ("14",), "human"),
        ("docvqa", ("1/8/93",), "handwritten, form"),
        ("textvqa", ("dakota", "nous les gosses", "clos culombu"), ""),
        ("visionthink", ("14",), "chartqa"),
    ],
)
def test_recipes_name_the_columns_of_published_data_sets(
    name: str, answers: tuple[str, ...], kind: str
) -> None:
    settings = load(name).imports
    record = {**PUBLISHED[name], settings.image: {"bytes": PNG, "path": None}}
    reader = RecordReader(
        choose_columns(settings, [record]), settings, PictureFinder(LocalRoot(Path()), ())
    )
    [draft] = reader.read(record, "train.parquet", 0)
    assert isinstance(draft, Draft), draft
    assert (draft.sample.answers, draft.sample.kind) == (answers, kind)
    assert draft.sample.scorer == load(name).evaluate.scorer


def test_a_hub_that_cannot_be_reached_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert downloaded("pages/a.jsonl") == "pages/a.jsonl"
    for source in ("hf://nobody/nosuch", "hf://nobody/nosuch/folder", "hf://a b"):
        with pytest.raises(DataError, match=f"{source} cannot be downloaded"):
            downloaded(source)
