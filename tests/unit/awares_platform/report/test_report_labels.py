"""Tests that names in a chart never overlap each other and never leave the frame."""

import itertools

import pytest

from awares_platform.report.labels import NamePlate, place

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
    ],
)
def test_names_find_free_places(marks):
    labels = place(marks, FRAME)
    assert not any(
        first.overlaps(second) for first, second in itertools.combinations(labels.values(), 2)
    )
    assert all(label.within(FRAME) for label in labels.values())


def test_a_name_stands_right_of_its_mark_and_left_of_it_at_the_edge():
    assert place([("low", 200, 60)], FRAME) == {"low": NamePlate(212, 60, "start", 3 * 6.9)}
    assert place([("low", 670, 60)], FRAME) == {"low": NamePlate(658, 60, "end", 3 * 6.9)}


def test_edges_follow_the_anchor():
    labels = [NamePlate(100, 0, anchor, 40) for anchor in ("start", "middle", "end")]
    edges = [(label.left, label.right) for label in labels]
    assert edges == [(100, 140), (80, 120), (60, 100)]
