"""Resolution-sufficiency labels: a judge compares the answers at low and at full resolution (paper, section 3.2)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal, Protocol

from awares.sample import Label

BothWrong = Literal["LR", "drop"]
"""What becomes of a sample that neither resolution answers: the paper's LR, or no label."""


class Verdict(IntEnum):
    """The judge's digit."""

    TIE = 0  # both good or both bad
    LOW = 1  # the low-resolution answer is better
    FULL = 2  # the full-resolution answer is better


@dataclass(frozen=True, slots=True)
class Case:
    """What a judge sees.

    Example:
        Case("digit on the red circle?", truth="7", low_answer="1", full_answer="7")
    """

    question: str
    truth: str
    low_answer: str
    full_answer: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict; `both_wrong` splits TIE where the judge can tell.

    Example:
        Judgement(Verdict.FULL)
    """

    verdict: Verdict
    both_wrong: bool = False


class Judge(Protocol):
    """Judges cases in batches, one judgement per case in order. An LLM as judge and exact matching both fit."""

    def __call__(self, cases: Sequence[Case]) -> list[Judgement]: ...


class ExactMatch:
    """The judge for short answers: right means equal to the truth after `normalise`.

    Example:
        ExactMatch()([Case("?", "7", "1", "7.")])  # [Judgement(Verdict.FULL)]
    """

    def __call__(self, cases: Sequence[Case]) -> list[Judgement]:
        return [_compare(case) for case in cases]


def _compare(case: Case) -> Judgement:
    truth = normalise(case.truth)
    low, full = normalise(case.low_answer) == truth, normalise(case.full_answer) == truth
    if low == full:
        return Judgement(Verdict.TIE, both_wrong=not low)
    return Judgement(Verdict.LOW if low else Verdict.FULL)


def normalise(text: str) -> str:
    """Lower case, single spaces, no full stop or space at the ends."""
    return re.sub(r"\s+", " ", text).strip(" .").lower()


def label(judgement: Judgement, both_wrong: BothWrong = "LR", *, sure: bool = True) -> Label | None:
    """HR if full resolution is better, else LR; None (leave the sample out) where both are wrong and the policy is to drop.

    `sure` false says that the low-resolution answer was little more than a guess. A guess that came out right is no proof that low
    resolution is enough: where full resolution is as good, the label is HR.
    """
    if judgement.verdict is Verdict.FULL:
        return Label.HR
    if judgement.both_wrong:
        return None if both_wrong == "drop" else Label.LR
    return Label.LR if sure or judgement.verdict is Verdict.LOW else Label.HR
