"""Tests that a grounding model's reply becomes pixel boxes, and is never executed as code."""

import asyncio
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from awares.errors import DataError
from awares.grounding import Annotations
from awares.sample import Sample
from awares_platform.method.grounding import parse_boxes, pixel_boxes


@pytest.mark.parametrize(
    ("reply", "boxes"),
    [
        (
            '{"question": [[0, 0, 500, 500]], "answer": [[500, 500, 1000, 1000]]}',
            [(0, 0, 500, 500), (500, 500, 1000, 1000)],
        ),
        ("```python\n{'question': [], 'answer': [(10, 20, 30, 40)]}\n```", [(10, 20, 30, 40)]),
        ('{"answer": [1, 2, 3, 4]}', [(1, 2, 3, 4)]),
        ('Sure! {"question": null, "answer": [[1.5, 2, 3, 4]]} Hope this helps.', [(1.5, 2, 3, 4)]),
    ],
)
def test_replies_that_parse(reply: str, boxes: list[tuple[float, ...]]) -> None:
    assert parse_boxes(reply) == boxes


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "no boxes",
        '{"question": [], "answer": []}',
        '{"answer": [[1, 2, 3]]}',
        '{"answer": [["1", 2, 3, 4]]}',
        '{"answer": [[1, 2, 3, NaN]]}',
        '{"answer": [[true, 2, 3, 4]]}',
        '{"answer": 7}',
        "{__import__('os').system('true')}",
        "{'answer': [[__import__('os'), 2, 3, 4]]}",
        "{" * 500 + "}" * 500,
        '{"answer": ' + "[" * 9000 + "]" * 9000 + "}",
        '{"answer": [[1,2,3,4]]}' + " " * 20_000,
    ],
)
def test_replies_that_do_not(reply: str) -> None:
    with pytest.raises(DataError, match="the oracle"):
        parse_boxes(reply)


@settings(deadline=None)
@given(st.text(max_size=200))
def test_parsing_never_raises_anything_else(reply: str) -> None:
    try:
        parse_boxes("{" + reply + "}")
    except DataError:
        pass


def test_pixels_by_hand() -> None:
    boxes = pixel_boxes(
        [(0, 0, 500, 250), (900, 750, 100, 1000), (-50, 0, 1200, 1000), (500, 500, 500, 500)],
        (112, 56),
    )
    assert boxes == ((0, 0, 56, 14), (11, 42, 101, 56), (0, 0, 112, 56), (56, 28, 57, 29))


@settings(deadline=None)
@given(
    st.lists(st.tuples(*[st.floats(-2000, 3000)] * 4), min_size=1),
    st.tuples(st.integers(1, 3000), st.integers(1, 3000)),
)
def test_pixel_boxes_lie_in_the_image(
    boxes: list[tuple[float, float, float, float]], size: tuple[int, int]
) -> None:
    for left, top, right, bottom in pixel_boxes(boxes, size):
        assert 0 <= left < right <= size[0] and 0 <= top < bottom <= size[1]


def test_annotations_are_the_samples_own_or_an_error() -> None:
    sample = Sample("s", "0" * 64, "q", "a", evidence=((1, 2, 3, 4),))
    assert asyncio.run(Annotations().boxes(sample)) == ((1, 2, 3, 4),)
    with pytest.raises(DataError, match="sample bare has no evidence"):
        asyncio.run(Annotations().boxes(Sample("bare", "0" * 64, "q", "a")))


def test_json_and_python_agree() -> None:
    boxes = {"question": [[1, 2, 3, 4]], "answer": [[5, 6, 7, 8]]}
    assert parse_boxes(json.dumps(boxes)) == parse_boxes(str(boxes)) == [(1, 2, 3, 4), (5, 6, 7, 8)]
