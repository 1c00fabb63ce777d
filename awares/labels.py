"""Labels say whether low resolution suffices for a sample (paper, section 3.2).

A judge compares the policy's answers at low and at full resolution with the true answer.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Literal, Protocol

from awares.sample import Label
from awares.text_form import normalise

BothWrong = Literal["LR", "drop"]
"""What to do with a sample if the policy answers it wrongly at both resolutions.

"LR" labels the sample LR, as the paper does. "drop" leaves the sample out.
"""


class Verdict(IntEnum):
    """A judge's verdict. The value is the digit with which the judge replies."""

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
    """The true answer."""
    low_answer: str
    """The policy's answer at low resolution."""
    full_answer: str
    """The policy's answer at full resolution."""
    further_truths: tuple[str, ...] = ()
    """Other answers that are right as well."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict. `both_wrong` is true if the verdict is TIE and both answers are wrong.

    Example:
        Judgement(Verdict.FULL)
    """

    verdict: Verdict
    both_wrong: bool = False


class Judge(Protocol):
    """Judges whether the low-resolution answer to a case is good enough.

    Curation calls the judge concurrently for every sample. If the judge raises DataError, the
    sample gets no label. If a judge is an async context manager, curation makes all calls inside
    it.

    To use a judge of your own, set `curate.judge = "module:attribute"`. Curation calls this
    attribute with all settings of the table [curate.judge_settings]. If the attribute has a
    parameter `endpoint`, curation also passes the table [curate.judge_endpoint].

    Example:
        class LongerIsBetter:
            async def __call__(self, case):
                low, full = len(case.low_answer), len(case.full_answer)
                return Judgement(Verdict.LOW if low >= full else Verdict.FULL)
    """

    async def __call__(self, case: Case) -> Judgement: ...


class MatchJudge:
    """A judge for short answers. An answer is right if it equals a truth after `normalise`.

    Example:
        await MatchJudge()(Case("?", "7", "1", "7."))  # Judgement(Verdict.FULL)
    """

    async def __call__(self, case: Case) -> Judgement:
        return _compare(case)


def _compare(case: Case) -> Judgement:
    truths = set(map(normalise, (case.truth, *case.further_truths)))
    low, full = normalise(case.low_answer) in truths, normalise(case.full_answer) in truths
    if low == full:
        return Judgement(Verdict.TIE, both_wrong=not low)
    return Judgement(Verdict.LOW if low else Verdict.FULL)


def label(judgement: Judgement, both_wrong: BothWrong = "LR", *, sure: bool = True) -> Label | None:
    """Return HR if the full-resolution answer is better, and otherwise LR, with two exceptions.

    - None, if both answers are wrong and `both_wrong` is "drop".
    - HR, if both are right and `sure` is false, because the low answer may be a guess.
    """
    if judgement.verdict is Verdict.FULL:
        return Label.HR
    if judgement.both_wrong:
        return None if both_wrong == "drop" else Label.LR
    return Label.LR if sure or judgement.verdict is Verdict.LOW else Label.HR
