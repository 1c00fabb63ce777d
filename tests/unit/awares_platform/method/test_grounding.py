"""Tests that a grounding model's reply becomes pixel boxes, and is never executed as code."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from awares.crops import Box
from awares.grounding import Annotations
from awares.sample import Sample
from awares_platform.method.box_reply import DrawnBoxes, Quad, read_boxes
from awares_platform.method.box_units import (
    BoxUnit,
    admitted,
    batch_unit,
    inside,
    pixel_boxes,
    usual_unit,
)
from awares_platform.method.spoken import Unreadable

REPLIES = Path(__file__).parent / "replies" / "grounding_replies.jsonl"
PAGE = (1700, 2200)
MODEL = "qwen3-vl-235b-a22b"


def cases() -> list[dict[str, Any]]:
    return [json.loads(line) for line in REPLIES.read_text("utf-8").splitlines()]


def placed(
    replies: list[str], size: tuple[int, int] = PAGE, model: str = MODEL
) -> list[tuple[Box, ...] | None]:
    """Read the replies as one batch. None stands for a reply that is refused."""
    drawn: list[DrawnBoxes | None] = []
    for reply in replies:
        try:
            drawn.append(inside(read_boxes(reply), size))
        except Unreadable:
            drawn.append(None)
    units = batch_unit([(one, size) for one in drawn if one], usual_unit(model))
    chosen = [units.get(admitted(one.boxes, size)) if one else None for one in drawn]
    return [
        () if one and not one.boxes else pixel_boxes(one, unit, size) if one and unit else None
        for one, unit in zip(drawn, chosen, strict=True)
    ]


@pytest.mark.parametrize("case", cases(), ids=lambda case: case["note"] or case["content"][:40])
def test_a_reply_gives_its_boxes_or_none(case: dict[str, Any]) -> None:
    [found] = placed([case["content"]], tuple(case["size"]))
    assert (None if found is None else [list(box) for box in found]) == case["pixels"]


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "no boxes",
        '{"answer": [[1, 2, 3]]}',
        '{"answer": [[1, 2, 3, NaN]]}',
        '{"answer": 7}',
        "{__import__('os').system('true')}",
        "{" * 500 + "}" * 500,
        '{"answer": ' + "[" * 9000 + "]" * 9000 + "}",
        '{"answer": [[1,2,3,4]]}' + " x" * 10_000,
    ],
)
def test_replies_that_do_not(reply: str) -> None:
    with pytest.raises(Unreadable, match="the oracle"):
        read_boxes(reply)


@settings(deadline=None)
@given(st.text(max_size=200) | st.text('{}[]()0123456789.,-"answer:<|box>', max_size=80))
def test_parsing_never_raises_anything_else(reply: str) -> None:
    try:
        read_boxes("{" + reply + "}")
    except Unreadable:
        pass


FORMS = (
    '{{"question": [], "answer": [[{0}, {1}, {2}, {3}]]}}',
    '```json\n[{{"bbox_2d": [{0}, {1}, {2}, {3}], "label": "total"}}]\n```',
    "<|box_start|>({0},{1}),({2},{3})<|box_end|>",
    "{{'Answer': [({2}, {3}, {0}, {1})]}}",
    '[{{"points": [[{0}, {1}], [{2}, {1}], [{2}, {3}], [{0}, {3}]]}}]',
    '{{"answer": ["{0},{1},{2},{3}"]}}',
    "<think>[1, 2]</think>[{0}, {1}, {2}, {3}]",
)


@settings(deadline=None)
@given(
    st.tuples(st.integers(0, 800), st.integers(0, 800)),
    st.tuples(st.integers(1, 200), st.integers(1, 200)),
    st.sampled_from(FORMS),
)
def test_every_form_of_a_box_gives_the_same_pixels(
    corner: tuple[int, int], extent: tuple[int, int], form: str
) -> None:
    box = (*corner, corner[0] + extent[0], corner[1] + extent[1])
    if max(box) <= 1:
        return
    plain = json.dumps({"answer": [box]})
    assert placed([form.format(*box)]) == placed([plain])
    [found] = placed([plain])
    assert found is not None and found[0] == (
        box[0] * 1700 // 1000,
        box[1] * 2200 // 1000,
        -(-box[2] * 1700 // 1000),
        -(-box[3] * 2200 // 1000),
    )


@settings(deadline=None)
@given(st.sampled_from(["[-9, 0, 3, 3]", "[1e9, 0, 2e9, 5]", "[5, 5, 5, 9]", "[1, 2]", "null"]))
def test_a_bad_box_changes_no_good_one(bad: str) -> None:
    good = "[100, 200, 300, 400]"
    assert placed([f'{{"answer": [{bad}, {good}]}}']) == [((170, 440, 510, 880),)]


quads = st.tuples(*[st.floats(-2000, 3000)] * 4)


@settings(deadline=None)
@given(
    st.lists(quads, min_size=1, max_size=4), st.tuples(st.integers(1, 3000), st.integers(1, 3000))
)
def test_pixel_boxes_lie_in_the_image_and_nothing_is_clamped(
    boxes: list[Quad], size: tuple[int, int]
) -> None:
    reply = json.dumps({"answer": boxes})
    try:
        drawn = inside(read_boxes(reply), size)
    except Unreadable:
        return
    for unit in admitted(drawn.boxes, size):
        for left, top, right, bottom in pixel_boxes(drawn, unit, size):
            assert 0 <= left < right <= size[0] and 0 <= top < bottom <= size[1]
    assert all(edge >= 0 for box in drawn.boxes for edge in box)


def reply(*box: float) -> str:
    return json.dumps({"answer": [box]})


def test_a_batch_in_pixels_settles_its_small_boxes() -> None:
    found = placed([reply(100, 200, 300, 400), *[reply(1200, 1800, 1500, 1900)] * 2])
    assert found[0] == ((100, 200, 300, 400),)
    assert placed([reply(100, 200, 300, 400)]) == [((170, 440, 510, 880),)]


def test_one_stray_reply_does_not_turn_a_batch_of_thousandths_into_pixels() -> None:
    small = [reply(100, 200, 300, 400)] * 60
    found = placed([*small, reply(1200, 1800, 1500, 1900)])
    assert found == [((170, 440, 510, 880),)] * 60 + [None]


def test_a_mixed_batch_keeps_only_what_is_unambiguous() -> None:
    found = placed([*[reply(100, 200, 300, 400)] * 9, reply(1200, 1800, 1500, 1900)])
    assert found == [None] * 9 + [((1200, 1800, 1500, 1900),)]


def test_a_small_image_shows_thousandths_and_its_size_shows_pixels() -> None:
    assert placed([reply(500, 500, 900, 900)], (400, 300)) == [((200, 150, 360, 270),)]
    doubtful = reply(100, 200, 300, 250)
    assert placed([doubtful], (400, 300), "Qwen2.5-VL-7B-Instruct") == [None]
    batch = placed([doubtful, reply(500, 500, 900, 900)], (400, 300), "Qwen2.5-VL-7B-Instruct")
    assert batch[0] == ((40, 60, 120, 75),)


def test_the_whole_image_in_fractions_needs_a_batch_of_fractions() -> None:
    whole = reply(0, 0, 1, 1)
    assert placed([whole]) == [None]
    fractions = [reply(0.1, 0.2, 0.3, 0.4)] * 2
    assert placed([whole, *fractions])[0] == ((0, 0, 1700, 2200),)
    assert placed([whole, *fractions, *[reply(100, 200, 300, 400)] * 3])[0] is None


def test_units_by_hand() -> None:
    drawn = DrawnBoxes(((0, 0, 500, 250), (100, 750, 900, 1000)))
    boxes = pixel_boxes(drawn, BoxUnit.THOUSANDTHS, (112, 56))
    assert boxes == ((0, 0, 56, 14), (11, 42, 101, 56))
    assert pixel_boxes(DrawnBoxes(((0.1, 0.1, 0.15, 0.2),)), BoxUnit.FRACTIONS, (10, 10)) == (
        (1, 1, 2, 2),
    )


def test_annotations_are_the_samples_own_or_an_error() -> None:
    sample = Sample("s", "0" * 64, "q", "a", evidence=((1, 2, 3, 4),))
    assert asyncio.run(Annotations().boxes(sample)) == ((1, 2, 3, 4),)
    with pytest.raises(Exception, match="sample bare has no evidence"):
        asyncio.run(Annotations().boxes(Sample("bare", "0" * 64, "q", "a")))
