import asyncio

import pytest

from awares.labels import Case, Judgement, MatchJudge, Verdict, label
from awares.sample import Label


@pytest.mark.parametrize(
    ("low", "full", "verdict", "both_wrong", "kept", "strict"),
    [
        ("7", "7", Verdict.TIE, False, Label.LR, Label.LR),
        ("7", "1", Verdict.LOW, False, Label.LR, Label.LR),
        ("1", "7", Verdict.FULL, False, Label.HR, Label.HR),
        # Both answers are wrong. By default, `label` returns LR, as in the paper. With the option
        # "drop", `label` returns None.
        ("1", "2", Verdict.TIE, True, Label.LR, None),
        (" 7. ", "1", Verdict.LOW, False, Label.LR, Label.LR),
        ("", "7", Verdict.FULL, False, Label.HR, Label.HR),
    ],
)
def test_the_match_judge_by_hand(low, full, verdict, both_wrong, kept, strict):
    judgement = asyncio.run(MatchJudge()(Case("digit?", "7", low, full)))
    assert judgement == Judgement(verdict, both_wrong)
    assert (label(judgement), label(judgement, "drop")) == (kept, strict)


def test_any_of_several_truths_is_right():
    case = Case("brand?", "nokia", "Nokia phone", "samsung", further_truths=("nokia phone",))
    assert asyncio.run(MatchJudge()(case)) == Judgement(Verdict.LOW)


@pytest.mark.parametrize(
    ("judgement", "kept", "strict"),
    [
        (Judgement(Verdict.TIE), Label.HR, Label.HR),
        (Judgement(Verdict.TIE, both_wrong=True), Label.LR, None),
        (Judgement(Verdict.LOW), Label.LR, Label.LR),
        (Judgement(Verdict.FULL), Label.HR, Label.HR),
    ],
)
def test_a_guess_is_no_proof_that_low_resolution_is_enough(judgement, kept, strict):
    assert (label(judgement, sure=False), label(judgement, "drop", sure=False)) == (kept, strict)
