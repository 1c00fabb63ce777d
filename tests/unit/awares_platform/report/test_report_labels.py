"""Tests that the names of a chart's marks do not overlap and do not leave the frame."""

import itertools
from dataclasses import replace

import pytest

from awares_platform.report.labels import LETTER, NamePlate, place

FRAME = (50.0, 15.0, 680.0, 250.0)


@pytest.mark.parametrize(
    "marks",
    [
        [
            ("full resolution", 640, 60),
            ("low", 200, 200),
            ("escalate to the whole image", 300, 62),
            ("sft", 290, 64),
            ("awares", 250, 60),
        ],
        [
            ("full resolution", 640, 60),
            ("low", 200, 60),
            ("escalate to the whole image", 205, 60),
            ("sft", 210, 60),
            ("awares", 215, 60),
        ],
        [
            (name, 650, 40)
            for name in ("full resolution", "low", "threshold", "escalate", "sft", "awares")
        ],
    ],
)
def test_names_find_free_places(marks):
    labels = place(marks, FRAME)
    assert not any(
        first.overlaps(second) for first, second in itertools.combinations(labels.values(), 2)
    )
    assert all(label.within(FRAME) for label in labels.values())


def test_a_name_stands_right_of_its_mark_and_left_of_it_at_the_edge():
    assert place([("low", 200, 60)], FRAME) == {"low": NamePlate(212, 60, "start", 3 * LETTER)}
    assert place([("low", 670, 60)], FRAME) == {"low": NamePlate(658, 60, "end", 3 * LETTER)}


def test_edges_follow_the_anchor():
    labels = [NamePlate(100, 0, anchor, 40) for anchor in ("start", "middle", "end")]
    edges = [(label.left, label.right) for label in labels]
    assert edges == [(100, 140), (80, 120), (60, 100)]


def test_names_keep_apart_in_a_wide_font():
    """Check that names do not overlap in DejaVu Sans Bold, a wide font.

    `measured` holds the real widths of two names. The estimated widths must not be smaller.
    """
    measured = {"AwaRes, SFT only": 129.0, "confidence threshold": 154.0}
    marks = [
        ("full resolution", 621.0, 52.0),
        ("low resolution", 194.0, 147.0),
        ("confidence threshold", 277.0, 92.0),
        ("escalate to the whole image", 426.0, 54.0),
        ("AwaRes, SFT only", 288.0, 66.0),
        ("AwaRes", 277.0, 58.0),
    ]
    labels = place(marks, FRAME)
    assert all(labels[name].width >= width for name, width in measured.items())
    wide = {**labels}
    for name, width in measured.items():
        wide[name] = replace(labels[name], width=width)
    pairs = itertools.combinations(wide.values(), 2)
    assert not any(first.overlaps(second) for first, second in pairs)
