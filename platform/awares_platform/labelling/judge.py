"""Judges: was the low-resolution view enough? (paper, section 3.2)

A judge sees the question, the truth, the answer from the low-resolution view and the answer from the full image, never the image.
"""

import re
from typing import Protocol

from awares.errors import DataError
from awares.labels import Case, ExactMatch, Judgement, Verdict
from awares_platform.labelling.chat_client import ChatEndpoint

INSTRUCTIONS = """\
Two systems answered the same question about an image. You cannot see the image; trust the reference answer.
Judge only whether an answer means the same as the reference: ignore length, wording, casing, politeness, and
units that the question implies. Reply with exactly one digit and nothing else:
0 if both answers are right, or both are wrong;
1 if answer 1 is the better one;
2 if answer 2 is the better one."""


class CaseJudge(Protocol):
    """Judges one case, many at a time. Raises DataError if this case cannot be judged."""

    async def __call__(self, case: Case) -> Judgement: ...


class MatchJudge:
    """The judge for short answers: normalised comparison with the truth."""

    async def __call__(self, case: Case) -> Judgement:
        return ExactMatch()([case])[0]


class EndpointJudge:
    """An LLM judge. Its 0 does not say whether both answers are right or both wrong."""

    def __init__(self, endpoint: ChatEndpoint) -> None:
        self._endpoint = endpoint

    async def __call__(self, case: Case) -> Judgement:
        text = f"Question: {case.question}\nReference answer: {case.truth}\nAnswer 1: {case.low_answer}\nAnswer 2: {case.full_answer}\nDigit:"
        messages = [{"role": "system", "content": INSTRUCTIONS}, {"role": "user", "content": text}]
        return Judgement(parse_verdict(await self._endpoint.complete(messages)))


def parse_verdict(text: str) -> Verdict:
    """The verdict in a judge's reply: the only number in it. Raises DataError for anything else, and never guesses."""
    numbers = set(re.findall(r"[-+]?\d[\d.,]*", text.strip(" .")))
    if len(numbers) != 1 or not numbers <= {"0", "1", "2"}:
        raise DataError(f"the judge's reply is not a verdict 0, 1 or 2: {text[:80]!r}")
    return Verdict(int(numbers.pop()))
