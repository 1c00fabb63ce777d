"""Labels: does low resolution suffice for a sample? (paper, section 3.2)

A judge compares the answers at low and at full resolution with the truth.
"""

import re
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal, Protocol

from awares.sample import Label

BothWrong = Literal["LR", "drop"]
"""The label of a sample whose answers are both wrong: LR as in the paper, or none."""


class Verdict(IntEnum):
    """The digit that a judge replies."""

    # Both answers are right, or both are wrong.
    TIE = 0
    # The low-resolution answer is better.
    LOW = 1
    # The full-resolution answer is better.
    FULL = 2


@dataclass(frozen=True, slots=True)
class Case:
    """The texts that a judge compares.

    Example:
        Case("digit on the red circle?", truth="7", low_answer="1", full_answer="7")
    """

    question: str
    truth: str
    low_answer: str
    full_answer: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict. If it is TIE, `both_wrong` says whether both answers are wrong or both are right.

    Example:
        Judgement(Verdict.FULL)
    """

    verdict: Verdict
    both_wrong: bool = False


class Judge(Protocol):
    """Judges whether the low-resolution answer to a case is good enough.

    Curation calls it for every sample, many at a time. It sees texts, never the image. It raises
    DataError for a case that cannot be judged, and that sample gets no label. A judge that is an
    async context manager is entered before its first call and left after its last one.

    Name your own as `curate.judge = "module:attribute"`. It is called with the table
    [curate.judge_settings] and, if its signature names `endpoint`, with the configuration's
    judge_endpoint.

    Example:
        class LongerIsBetter:
            async def __call__(self, case):
                low, full = len(case.low_answer), len(case.full_answer)
                return Judgement(Verdict.LOW if low >= full else Verdict.FULL)
    """

    async def __call__(self, case: Case) -> Judgement: ...


class MatchJudge:
    """The judge for short answers: right means equal to the truth after `normalise`.

    Example:
        await MatchJudge()(Case("?", "7", "1", "7."))  # Judgement(Verdict.FULL)
    """

    async def __call__(self, case: Case) -> Judgement:
        return _compare(case)


def _compare(case: Case) -> Judgement:
    truth = normalise(case.truth)
    low, full = normalise(case.low_answer) == truth, normalise(case.full_answer) == truth
    if low == full:
        return Judgement(Verdict.TIE, both_wrong=not low)
    return Judgement(Verdict.LOW if low else Verdict.FULL)


def normalise(text: str) -> str:
    """The text in lower case, with single spaces, without full stops or spaces at its ends."""
    return re.sub(r"\s+", " ", text).strip(" .").lower()


def label(judgement: Judgement, both_wrong: BothWrong = "LR", *, sure: bool = True) -> Label | None:
    """HR if full resolution is better, else LR.

    None leaves the sample out: both answers are wrong, and `both_wrong` is "drop". `sure` is False
    if the low-resolution answer is little more than a guess. A right guess does not prove that low
    resolution suffices, so the label is HR if full resolution is as good.
    """
    if judgement.verdict is Verdict.FULL:
        return Label.HR
    if judgement.both_wrong:
        return None if both_wrong == "drop" else Label.LR
    return Label.LR if sure or judgement.verdict is Verdict.LOW else Label.HR
