"""Tests the lenient parser on a corpus of turns, and that it invents no requested region."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from awares.crops import CropId
from awares.environment import Answer, Malformed, Parsed, Request, lenient_parser
from awares.lenient import mentions_request, parse_lenient
from awares.protocol import crop_names, format_request, parse_turn
from awares.ten_crops import TenCrops
from awares.whole_image import WholeImage

CORPUS = [
    json.loads(line)
    for line in (Path(__file__).parent / "request_forms.jsonl").read_text("utf-8").splitlines()
]
LEAST_READ = 0.95


def short(parsed: Parsed) -> str:
    """Return a result as the corpus writes it: "A", "M", or "R:" and the requested regions."""
    if isinstance(parsed, Request):
        return "R:" + ",".join(parsed.regions)
    return "A" if isinstance(parsed, Answer) else "M"


def test_the_parser_reads_95_percent_of_the_recoverable_forms_and_none_wrongly():
    results = [(row["text"], row["want"], short(parse_lenient(row["text"]))) for row in CORPUS]
    recoverable = [(want, got) for _, want, got in results if want.startswith("R")]
    assert len(recoverable) > 80
    assert sum(want == got for want, got in recoverable) / len(recoverable) >= LEAST_READ
    # The parser may refuse a recoverable request as Malformed, but must never misread a turn.
    assert [row for row in results if row[1] != row[2] and row[2] != "M"] == []
    assert [row for row in results if not row[1].startswith("R") and row[1] != row[2]] == []


def test_every_request_of_the_strict_parser_is_read_alike():
    for row in CORPUS:
        if isinstance(strict := parse_turn(row["text"]), Request):
            assert parse_lenient(row["text"]) == strict


@pytest.mark.parametrize(
    "text",
    [
        "GET_CROP: ['3'] or not",
        "GET\\_CROPS",
        "getCrops(...)",
        "**Get Crops**: maybe",
        "<tool_call>get_crops",
        "ＧＥＴ_ＣＲＯＰＳ",
        "GET_\u200bCROPS",
    ],
)
def test_text_with_the_name_of_the_call_is_never_an_answer(text):
    assert mentions_request(text)
    assert isinstance(parse_lenient(text), Malformed)


def test_an_answer_loses_its_thoughts_and_nothing_else():
    assert parse_lenient(" <think>small digits</think>\n7 ‘apples’ \\_o_/ ") == Answer(
        "7 ‘apples’ \\_o_/"
    )


@given(st.lists(st.sampled_from(CropId), min_size=1, unique=True))
def test_the_lenient_parser_reads_the_canonical_form(crops):
    assert parse_lenient(format_request(crops)) == Request(tuple(crops), canonical=True)


PIECES = ("GET_CROPS", "get_crops", "getCrop", "GET CROPS", "GET\\_CROPS", "0", "3", "8", "9", "10")
PIECES += (
    "['3']",
    "[",
    "]",
    "(",
    ")",
    "{",
    "}",
    "'",
    '"',
    ":",
    ",",
    " ",
    "\n",
    "`",
    "*",
    "-",
    "all",
)
PIECES += (
    "top",
    "left",
    "quarter",
    "top-left",
    "or",
    "and",
    "not",
    "to read",
    "7",
    "crops=",
    "...",
)


@settings(max_examples=400)
@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_no_region_is_invented_and_no_request_is_overlooked(text):
    parsed = parse_lenient(text)
    if isinstance(parsed, Answer):
        assert not mentions_request(text)
    if isinstance(parsed, Request):
        words = re.sub(r"[\s_-]+", " ", text.lower())
        names = crop_names()
        for region in parsed.regions:
            assert any(name in words for name, crop in names.items() if crop == region), text


@given(st.text(max_size=60))
def test_the_parser_never_raises(text):
    parse_lenient(f"GET_CROPS{text}")
    parse_lenient(text)


def test_serving_reads_leniently_where_the_environment_can():
    form = "GET_CROP: 3"
    assert lenient_parser(TenCrops())(form) == Request(("3",), canonical=False)
    refused = lenient_parser(TenCrops(allow_all=False))("GET_CROPS: all")
    assert refused == Malformed("the whole image is not on offer")
    whole = WholeImage()
    assert lenient_parser(whole) == whole.parse
