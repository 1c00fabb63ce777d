import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awares.crops import CropId
from awares.protocol import (
    SYSTEM_PROMPT,
    Answer,
    Malformed,
    Request,
    format_request,
    parse_turn,
)

C = CropId
NAMES = {
    C.TOP_LEFT: ("top left",),
    C.TOP_RIGHT: ("top right",),
    C.BOTTOM_LEFT: ("bottom left",),
    C.BOTTOM_RIGHT: ("bottom right",),
    C.CENTER: ("center", "centre"),
    C.TOP: ("top", "top half"),
    C.BOTTOM: ("bottom", "bottom half"),
    C.LEFT: ("left", "left half"),
    C.RIGHT: ("right", "right half"),
    C.ALL: ("all",),
}


@pytest.mark.parametrize(
    ("text", "crops"),
    [
        ("GET_CROPS: ['0', '5']", (C.TOP_LEFT, C.TOP)),
        ("GET_CROPS: ['3']", (C.BOTTOM_RIGHT,)),
        ("GET_CROPS:['3']", (C.BOTTOM_RIGHT,)),
        ("GET_CROPS['3']", (C.BOTTOM_RIGHT,)),
        ("GET_CROPS:[3]", (C.BOTTOM_RIGHT,)),
        ("GET_CROPS [3]", (C.BOTTOM_RIGHT,)),
        ("GET_CROPS:['all']", (C.ALL,)),
        ("GET_CROPS : [ALL]", (C.ALL,)),
        ("  get_crops: [\"0\",5 , '8']\n", (C.TOP_LEFT, C.TOP, C.RIGHT)),
        ("GET_CROPS: [top-left, 'Bottom Half', center]", (C.TOP_LEFT, C.BOTTOM, C.CENTER)),
        ("GET_CROPS: [5, 0]", (C.TOP, C.TOP_LEFT)),
        ("GET_CROPS: ['4', '4']", (C.CENTER,)),
    ],
)
def test_forgiven_forms(text, crops):
    parsed = parse_turn(text)
    assert isinstance(parsed, Request) and parsed.regions == crops
    assert parsed.canonical == (text in ("GET_CROPS: ['0', '5']", "GET_CROPS: ['3']"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("GET_CROPS", "no list of regions"),
        ("GET_CROPS: 3", "no list of regions"),
        ("GET_CROPS: ['0', '5'", "the list of regions is not readable"),
        ("GET_CROPS: []", "unknown region in []"),
        ("GET_CROPS: ['0', ]", "unknown region in ['0',]"),
        ("GET_CROPS: ['9']", "unknown region in ['9']"),
        ("GET_CROPS: ['00']", "unknown region in ['00']"),
        ("GET_CROPS: ['-1']", "unknown region in ['-1']"),
        ("GET_CROPS: ['0 5']", "unknown region in ['0 5']"),
        ("GET_CROPS: ['0\"]", "unknown region in ['0\"]"),
        ("GET_CROPS: [whole image]", "unknown region in [whole image]"),
        ("GET_CROPS: ['٣']", "unknown region in ['٣']"),
        ("GET_CROPS: ['3'] The answer is 7", "text after the request"),
        ("GET_CROPS: ['3']\nGET_CROPS: ['4']", "text after the request"),
        ("I need more: GET_CROPS: ['3']", "text before the request"),
        ("the sign says GET_CROPS", "text before the request"),
        ("GET_CROPS: [['3']]", "the list of regions is not readable"),
    ],
)
def test_corrupt_forms_stay_corrupt(text, reason):
    assert parse_turn(text) == Malformed(reason)


def test_everything_else_is_an_answer():
    assert parse_turn(" 7\n") == Answer("7")
    assert parse_turn("") == Answer("")
    assert parse_turn("crops: ['3']") == Answer("crops: ['3']")


def test_what_is_on_offer_can_be_narrowed():
    assert parse_turn("GET_CROPS: ['all']", allow_all=False) == Malformed(
        "the whole image is not on offer"
    )
    assert parse_turn("GET_CROPS: ['0', '0']") == Request((C.TOP_LEFT,), canonical=False)


@given(st.lists(st.sampled_from(CropId), min_size=1, unique=True))
def test_requests_survive_the_round_trip(crops):
    assert parse_turn(format_request(crops)) == Request(tuple(crops), canonical=True)


def test_the_system_prompt_documents_the_canonical_form():
    assert format_request([C.TOP_LEFT, C.TOP]) in SYSTEM_PROMPT


def assert_honest(text: str) -> None:
    """Check that the parser invents no crop and overlooks no request.

    The text must list every crop of a parsed request. The text of a parsed answer must not contain
    GET_CROPS.
    """
    parsed = parse_turn(text)
    if isinstance(parsed, Request):
        listed = re.sub(r"[\s_-]+", " ", text[text.index("[") :].lower())
        for crop in parsed.regions:
            assert any(
                re.search(rf"(?<![a-z0-9]){name}(?![a-z0-9])", listed)
                for name in (crop, *NAMES[CropId(crop)])
            ), (text, crop)
        assert len(set(parsed.regions)) == len(parsed.regions) > 0
    if isinstance(parsed, Answer):
        assert "get_crops" not in text.lower()


PIECES = (
    *(
        "GET_CROPS",
        "get_crops",
        "GET_CROP",
        "GET CROPS",
        ":",
        " ",
        "  ",
        "\n",
        "[",
        "]",
        "[[",
        "'",
        '"',
        ",",
        ", ",
        ".",
        "<",
        ">",
        "(",
        ")",
    ),
    *(
        "0",
        "1",
        "5",
        "8",
        "9",
        "10",
        "-1",
        "07",
        "all",
        "All",
        "full",
        "image",
        "the whole image",
        "top",
        "left",
        "top-left",
        "right half",
    ),
    *(
        "center",
        "middle",
        "7",
        "red",
        "The answer is",
        "I need",
        "```",
        "<tool_call>",
        "</tool_call>",
        "{",
        "}",
        "é",
        "٣",
        "\u200b",
        "\x00",
    ),
)
TEMPLATES = (
    "GET_CROPS: ['0', '5']",
    "GET_CROPS: ['all']",
    "GET_CROPS:[3]",
    "GET_CROPS [top-left, bottom half]",
    "The answer is 7.",
    "red",
)


def model_like(rng: random.Random) -> str:
    """Return a turn from TEMPLATES with random edits, or a random sequence of PIECES."""
    if rng.random() < 0.5:
        return "".join(rng.choice(PIECES) for _ in range(rng.randint(0, 14)))
    letters = list(rng.choice(TEMPLATES))
    for _ in range(rng.randint(0, 4)):
        place = rng.randint(0, len(letters))
        letters[place : place + rng.randint(0, 3)] = (
            list(rng.choice(PIECES)) if rng.random() < 0.6 else []
        )
    text = "".join(letters)
    return text[: rng.randint(0, len(text))] if rng.random() < 0.2 else text


def test_ten_thousand_model_outputs_never_raise_and_never_invent_a_crop():
    rng = random.Random(0)
    texts = [model_like(rng) for _ in range(10_000)]
    for text in texts:
        assert_honest(text)
    kinds = [type(parse_turn(text)) for text in texts]
    # The test proves little if the parser rarely returns one of the three types.
    assert min(kinds.count(kind) for kind in (Answer, Request, Malformed)) > 500


@given(st.text())
def test_any_text_is_honest(text):
    assert_honest(text)
    assert_honest(f"GET_CROPS: [{text}]")
    assert_honest(f"GET_CROPS{text}")
