"""Tests the questions about a scene, and the train and test splits of AwaRes-Mini."""

import hashlib
from collections import Counter

import numpy as np

from awares.mini.benchmark import generate_split, kind
from awares.mini.questions import KINDS, ask, sample_kind
from awares.mini.scenes import Item, Scene

ONE = Item("northwest", "red", "circle", 3, 0, 24, (2, 2, 36, 36))
TWO = Item("southeast", "blue", "square", 8, 1, 10, (76, 76, 110, 110))
SCENE = Scene("train", 0, (ONE, TWO))


def _all_answers(question_kind):
    rng = np.random.default_rng(0)
    questions = [ask(SCENE, question_kind, rng) for _ in range(20)]
    return {(question.text, question.answer) for question in questions}


def test_the_scene_answers_every_kind_of_question():
    assert _all_answers("color") == {
        ("What color is the shape in the northwest?", "red"),
        ("What color is the shape in the southeast?", "blue"),
    }
    assert _all_answers("shape") == {
        ("What shape is in the northwest?", "circle"),
        ("What shape is in the southeast?", "square"),
    }
    assert _all_answers("place") == {
        ("Where is the red circle?", "northwest"),
        ("Where is the blue square?", "southeast"),
    }
    assert _all_answers("digit at") == {
        ("What digit is in the northwest?", "3"),
        ("What digit is in the southeast?", "8"),
    }
    assert _all_answers("digit on") == {
        ("What digit is on the red circle?", "3"),
        ("What digit is on the blue square?", "8"),
    }
    assert {answer for _, answer in _all_answers("sum")} == {"11"}
    assert {answer for _, answer in _all_answers("larger")} == {"8"}


def test_kind_names_the_smallest_digit_that_must_be_read():
    rng = np.random.default_rng(0)

    assert kind(ask(SCENE, "sum", rng)) == "sum/small"
    assert kind(ask(SCENE, "color", rng)) == "color"


def test_kinds_are_drawn_with_their_shares():
    rng = np.random.default_rng(0)
    drawn = Counter(sample_kind(rng) for _ in range(20_000))

    assert all(abs(drawn[name] / 20_000 - share) < 0.01 for name, share in KINDS.items())


def test_a_split_is_reproducible_and_its_hashes_are_those_of_the_files():
    first, second = (list(generate_split("test", 12, 3)) for _ in range(2))

    assert first == second
    assert all(sample.image == hashlib.sha256(data).hexdigest() for data, sample in first)
    assert len({sample.sample_id for _, sample in first}) == 12


def test_about_four_fifths_are_answerable_in_the_low_view():
    kinds = [sample.kind for _, sample in generate_split("test", 2000, 0)]
    unreadable = np.mean([name.endswith("/small") for name in kinds])
    uncertain = np.mean([name.endswith("/middle") for name in kinds])

    assert 0.15 < unreadable < 0.25
    assert 0.04 < uncertain < 0.12
