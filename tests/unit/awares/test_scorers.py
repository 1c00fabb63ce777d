"""Tests the scorer of each benchmark against scores computed by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awares.errors import ConfigError
from awares.evaluation.edit_distance import edit_distance
from awares.evaluation.option_letter import letter
from awares.evaluation.scorers import scorer, yes_no_f1

OPTIONS = "Which is closer?\nA. The red car\nB. The bus\nAnswer with the letter."


@pytest.mark.parametrize(
    ("name", "version", "prediction", "answers", "score"),
    [
        ("exact", "2026-08", " Seven. ", ["seven"], 1.0),
        ("exact", "2026-08", "seven apples", ["seven"], 0.0),
        # ChartQA accepts a number within 5 % of a nonzero answer, even if the answer is a year.
        # "5%" means 0.05. Any other prediction must equal the answer, ignoring case.
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
        ("chartqa", "2026-08", "yes ", ["yes"], 1.0),
        ("chartqa", "2026-08", "<think>5 or 6</think>\n6", ["6"], 1.0),
        ("chartqa", "2026-08", "no, so</think>6", ["6"], 1.0),
        ("chartqa", "2026-08", "<think>6", ["6"], 0.0),
        # ANLS is 1 - (edit distance / length of the longer text). A value below 0.5 counts as 0.
        # The best value of several answers counts.
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
        # The published version counts the letters of the upper-case text "STRASSE", which has 7.
        ("docvqa", "2026-08", "Stra\u00dfe", ["Strase"], 1 - 1 / 7),
        ("docvqa", "repaired", "Stra\u00dfe", ["Strase"], 1 - 1 / 6),
        # OCRBench accepts a prediction that contains an accepted answer.
        ("ocrbench", "2026-08", "It reads: HELLO\nWORLD", ["hello world"], 1.0),
        ("ocrbench", "2026-08", "hell", ["hello"], 0.0),
        ("ocrbench", "2026-08", "\uff21\uff11", ["a1"], 1.0),
        ("ocrbench", "2026-03", "\uff21\uff11", ["a1"], 0.0),
        ("ocrbench", "2026-08", "a\u3000b", ["a b"], 1.0),
        ("ocrbench", "2026-03", "a\u3000b", ["a b"], 0.0),
        ("ocrbench_math", "2026-08", r"\frac { X } { 2 }", [r"\frac{X}{2}"], 1.0),
        ("ocrbench_math", "2026-03", r"\frac { X } { 2 }", [r"\frac{X}{2}"], 0.0),
        ("pope", "2026-08", " Yes ", ["yes"], 1.0),
        ("pope", "2026-08", "Yes.", ["yes"], 0.0),
        ("pope", "repaired", "Yes.", ["yes"], 1.0),
        ("pope", "repaired", "Yes, there is no dog", ["no"], 0.0),
        ("vstar_bench", "2026-08", "(B)", ["B"], 1.0),
        # The published version reads a letter from A to D at the start of a text as the option,
        # even if this letter begins a word.
        ("vstar_bench", "2026-08", "Answer: B", ["B"], 0.0),
        ("vstar_bench", "2026-08", "Black", ["B"], 1.0),
        ("vstar_bench", "2026-08", "The bus", ["B"], 1.0),
        ("vstar_bench", "repaired", "Answer: B", ["B"], 1.0),
        ("vstar_bench", "repaired", "Black", ["B"], 0.0),
        ("vstar_bench", "repaired", "The bus", ["B"], 0.0),
        ("vstar_bench", "2026-08", "The answer is C", ["C"], 1.0),
        ("vstar_bench", "2026-08", "red", ["A"], 0.0),
        ("realworldqa", "2026-08", "A. The red car", ["A"], 1.0),
        ("realworldqa", "2026-08", "Two.", ["two"], 1.0),
        ("realworldqa", "2026-08", "two", ["2"], 0.0),
        ("realworldqa", "2026-03", "two", ["2"], 1.0),
        ("realworldqa", "2026-03", "The bus", ["B"], 1.0),
        ("realworldqa", "2026-03", "A. The red car", ["A"], 1.0),
        ("realworldqa", "2026-03", "(A)", ["A"], 1.0),
        ("realworldqa", "2026-03", "A)", ["A"], 1.0),
        ("realworldqa", "2026-03", "**B**", ["B"], 1.0),
        ("realworldqa", "2026-03", "b", ["B"], 1.0),
        # In "2026-08", only a capital letter can name an option. The letter may be part of a word.
        ("realworldqa", "2026-08", "b", ["B"], 0.0),
        ("realworldqa", "2026-08", "(b)", ["B"], 0.0),
        ("realworldqa", "2026-08", "Black", ["B"], 1.0),
        ("realworldqa", "repaired", "(b)", ["B"], 1.0),
        ("realworldqa", "repaired", "Black", ["B"], 0.0),
        ("realworldqa", "repaired", "The bus.", ["B"], 1.0),
        ("realworldqa", "repaired", "two", ["2"], 1.0),
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
        ("**B**", "B"),
        ("A red car", None),
        ("It is a bus", None),
        ("a bus", None),
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


@given(st.text("ab\u00df ", max_size=70), st.text("ab\u00df ", max_size=70))
def test_edit_distances_are_those_of_the_table(first, second):
    row = list(range(len(second) + 1))
    for left in first:
        above, row = row, [row[0] + 1]
        for place, right in enumerate(second, start=1):
            changed = above[place - 1] + (left != right)
            row.append(min(above[place] + 1, row[-1] + 1, changed))
    assert edit_distance(first, second) == row[-1]


LITERAL = ("exact", "docvqa", "ocrbench", "ocrbench_math", "pope")


@given(st.text(max_size=20), st.text(max_size=20))
def test_scores_stay_in_range_and_a_right_answer_is_right(prediction, answer):
    for name in (*LITERAL, "chartqa", "realworldqa", "vstar_bench"):
        for version in ("2026-03", "2026-08", "repaired"):
            assert 0.0 <= scorer(name, version)(prediction, [answer], "") <= 1.0
    for name in LITERAL:
        assert scorer(name, "repaired")(answer, [answer], "") == 1.0


def test_f1_of_yes():
    """Check that F1 is 4 / 6 for 2 true positives, 1 false positive and 1 false negative.

    Only the version "repaired" counts "maybe" as "no", which makes a second false negative.
    """
    said = ["yes", "Yes", "yes", "no", "maybe", "no"]
    true = ["yes", "yes", "no", "yes", "yes", "no"]
    assert yes_no_f1(said, true) == pytest.approx(4 / 6)
    assert yes_no_f1(["no"], ["no"]) == 0.0
    assert yes_no_f1(said, true, "repaired") == pytest.approx(4 / 7)


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="scorer 'charta' is unknown; use one of exact, chartqa"):
        scorer("charta")
    message = "scorer version '2025' is unknown; use one of 2026-03, 2026-08, repaired"
    with pytest.raises(ConfigError, match=message):
        scorer("exact", "2025")
