"""Tests the scorer of each benchmark against scores computed by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awares.errors import ConfigError
from awares.evaluation.scorers import edit_distance, letter, scorer, yes_no_f1

OPTIONS = "Which is closer?\nA. The red car\nB. The bus\nAnswer with the letter."


@pytest.mark.parametrize(
    ("name", "version", "prediction", "answers", "score"),
    [
        ("exact", "2026-08", " Seven. ", ["seven"], 1.0),
        ("exact", "2026-08", "seven apples", ["seven"], 0.0),
        # ChartQA accepts a number that differs from the answer by at most 5 %, even for a year.
        # "5%" means 0.05. If the answer is 0 or text, the prediction must equal the answer,
        # ignoring case.
        ("chartqa", "2026-08", "10.5", ["10"], 1.0),
        ("chartqa", "2026-08", "10.6", ["10"], 0.0),
        ("chartqa", "2026-08", "12.", ["12"], 1.0),
        ("chartqa", "2026-08", "2020", ["2008"], 1.0),
        ("chartqa", "2026-08", "5%", ["5"], 0.0),
        ("chartqa", "2026-08", "5%", ["0.05"], 1.0),
        ("chartqa", "2026-08", "1,000", ["1000"], 0.0),
        ("chartqa", "2026-08", "0.0", ["0"], 0.0),
        ("chartqa", "2026-08", "0", ["0"], 1.0),
        ("chartqa", "2026-08", "Yes", ["yes"], 1.0),
        ("chartqa", "2026-08", "yes ", ["yes"], 0.0),
        # ANLS is 1 - D / L. D is the edit distance, and L is the length of the longer text. A
        # value below 0.5 counts as 0. If there are several answers, the best value counts.
        ("docvqa", "2026-08", "Paris", ["paris"], 1.0),
        ("docvqa", "2026-08", "parts", ["paris"], 0.8),
        ("docvqa", "2026-08", "abxy", ["abcd"], 0.5),
        ("docvqa", "2026-08", "axyz", ["abcd"], 0.0),
        ("docvqa", "2026-08", "rome", ["paris", "rome"], 1.0),
        ("docvqa", "2026-08", "", [""], 1.0),
        ("docvqa", "2026-08", "a  b", ["a b"], 1.0),
        # The edit distance is 1, because it ignores the repeated space. The length is 4, because it
        # includes the repeated space.
        ("docvqa", "2026-08", "a  c", ["a b"], 0.75),
        # OCRBench accepts a prediction that contains an accepted answer.
        ("ocrbench", "2026-08", "It reads: HELLO\nWORLD", ["hello world"], 1.0),
        ("ocrbench", "2026-08", "hell", ["hello"], 0.0),
        ("ocrbench", "2026-08", "\uff21\uff11", ["a1"], 1.0),
        ("ocrbench", "2026-03", "\uff21\uff11", ["a1"], 0.0),
        ("ocrbench_math", "2026-08", r"\frac { X } { 2 }", [r"\frac{X}{2}"], 1.0),
        ("ocrbench_math", "2026-03", r"\frac { X } { 2 }", [r"\frac{X}{2}"], 0.0),
        ("pope", "2026-08", " Yes ", ["yes"], 1.0),
        ("pope", "2026-08", "Yes.", ["yes"], 0.0),
        ("vstar_bench", "2026-08", "(B)", ["B"], 1.0),
        ("vstar_bench", "2026-08", "The answer is C", ["C"], 1.0),
        ("vstar_bench", "2026-08", "red", ["A"], 0.0),
        ("realworldqa", "2026-08", "A. The red car", ["A"], 1.0),
        ("realworldqa", "2026-08", "Two.", ["two"], 1.0),
        ("realworldqa", "2026-08", "two", ["2"], 0.0),
        ("realworldqa", "2026-03", "two", ["2"], 1.0),
        ("realworldqa", "2026-03", "The bus", ["B"], 1.0),
        ("realworldqa", "2026-03", "A. The red car", ["A"], 0.0),
        ("realworldqa", "2026-03", "b", ["B"], 1.0),
    ],
)
def test_scores_are_those_of_the_rules(name, version, prediction, answers, score):
    assert scorer(name, version)(prediction, answers, OPTIONS) == pytest.approx(score)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("A", "A"),
        ("a", "A"),
        ("(D)", "D"),
        ("B.", "B"),
        ("C) the left one", "C"),
        ("Answer: D", "D"),
        ("The correct option is B", "B"),
        ("I think it is B because of the sign", "B"),
        ("either B or C", None),
        ("none", None),
        ("", None),
    ],
)
def test_the_letter_of_an_option_is_read(text, read):
    assert letter(text) == read


@pytest.mark.parametrize(
    ("first", "second", "distance"),
    [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("flaw", "lawn", 2)],
)
def test_edit_distances(first, second, distance):
    assert edit_distance(first, second) == distance


LITERAL = ("exact", "docvqa", "ocrbench", "ocrbench_math", "pope")


@given(st.text(max_size=20), st.text(max_size=20))
def test_scores_stay_in_range_and_a_right_answer_is_right(prediction, answer):
    for name in (*LITERAL, "chartqa", "realworldqa", "vstar_bench"):
        assert 0.0 <= scorer(name)(prediction, [answer], "") <= 1.0
    for name in LITERAL:
        assert scorer(name)(answer, [answer], "") == 1.0


def test_f1_of_yes():
    """Check that F1 is 4 / 6 for 2 true positives, 1 false positive and 1 false negative.

    The prediction "maybe" does not count.
    """
    said = ["yes", "Yes", "yes", "no", "maybe", "no"]
    true = ["yes", "yes", "no", "yes", "yes", "no"]
    assert yes_no_f1(said, true) == pytest.approx(4 / 6)
    assert math.isnan(yes_no_f1(["no"], ["no"]))


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="scorer 'charta' is unknown; use one of exact, chartqa"):
        scorer("charta")
    message = "scorer version '2025' is unknown; use one of 2026-03, 2026-08"
    with pytest.raises(ConfigError, match=message):
        scorer("exact", "2025")
