"""Tests that equal texts in different encodings compare as equal, and different texts do not."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awares.evaluation.scorers import scorer
from awares.reward import answer_reward
from awares.text_form import normalise, one_form


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("  The  Red\ncircle. ", "the red circle"),
        ("3.5", "3.5"),
        (".5", ".5"),
        (" .5.", ".5"),
        (". . .5", ".5"),
        ("5.", "5"),
        ("...", ""),
        ("cafe\u0301", "caf\u00e9"),
        ("\uff11\uff12\uff0e\uff15", "12.5"),
        ("1\u200b2\ufeff", "12"),
        ("\u202b\u05e9\u05dc\u05d5\u05dd\u202c", "\u05e9\u05dc\u05d5\u05dd"),
        ("\ufb01ne", "fine"),
        ("\uff76\uff9e", "\u30ac"),
        ("a\u00a0b\u3000c", "a b c"),
        ("10\u00b2", "10\u00b2"),
        ("\u00bd", "\u00bd"),
    ],
)
def test_normalise_gives_one_form(text: str, form: str) -> None:
    assert normalise(text) == form


@given(st.text(max_size=30))
def test_normalising_twice_changes_nothing_and_no_form_matters(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)
    assert normalise(unicodedata.normalize("NFD", text)) == normalise(
        unicodedata.normalize("NFC", text)
    )
    assert one_form(one_form(text)) == one_form(text)


FORMS = [("caf\u00e9", "cafe\u0301"), ("12", "\uff11\uff12"), ("a1", "a\u200b1")]


@pytest.mark.parametrize("name", ["exact", "chartqa", "docvqa", "ocrbench", "realworldqa"])
@pytest.mark.parametrize(("truth", "said"), FORMS)
def test_repaired_scorers_accept_every_form(name: str, truth: str, said: str) -> None:
    right = scorer(name, "repaired")
    assert right(said, [truth], "") == right(truth, [said], "") == 1.0


def test_other_repaired_scorers_accept_every_form() -> None:
    assert scorer("pope", "repaired")("\uff39es", ["yes"], "") == 1.0
    assert scorer("vstar_bench", "repaired")("\uff22", ["B"], "") == 1.0
    assert scorer("ocrbench_math", "repaired")("x\u200b = 2", ["x=2"], "") == 1.0


@pytest.mark.parametrize("name", ["exact", "chartqa"])
def test_a_fraction_is_no_whole_number(name: str) -> None:
    assert scorer(name)("5", [".5"], "") == scorer(name)(".5", ["5"], "") == 0.0


@pytest.mark.parametrize("name", ["exact", "anls", "similarity"])
@pytest.mark.parametrize(("truth", "said"), FORMS)
def test_rewards_accept_every_form(name: str, truth: str, said: str) -> None:
    [same, other] = answer_reward(name)([truth, said], [truth, truth])
    assert other == same == pytest.approx(1.0)
