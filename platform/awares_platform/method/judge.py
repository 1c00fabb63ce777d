"""Builds the configured judge, and defines EndpointJudge (paper, section 3.2).

A judge sees the question, the reference answer, and the policy's answers at low and at full
resolution. A judge never sees the image.
"""

from collections.abc import Mapping
from typing import Any, Self

from awares.labels import Case, Judge, Judgement, Verdict
from awares_platform.config.curate import CurateConfig, EndpointConfig
from awares_platform.method import seams
from awares_platform.method.asking import ask
from awares_platform.method.chat_client import ChatEndpoint, EndpointUsage, ReplyMemory
from awares_platform.method.correctness import read_correctness
from awares_platform.method.prompt_file import (
    JUDGE,
    JUDGE_EACH,
    PromptText,
    built_in,
    judge_prompt,
)
from awares_platform.method.verdicts import read_verdict

KEY = "curate.judge"
BUILT_IN = {
    "match": "awares.labels:MatchJudge",
    "endpoint": "awares_platform.method.judge:EndpointJudge",
}
EACH = "awares_platform.method.judge:EachAnswerJudge"


def _schema(name: str, value: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the JSON schema of an object whose only key is `name`."""
    return {
        "type": "object",
        "properties": {name: value},
        "required": [name],
        "additionalProperties": False,
    }


SCHEMA = _schema("verdict", {"type": "integer", "enum": [0, 1, 2]})
SCHEMA_EACH = _schema("right", {"type": "boolean"})


class EndpointJudge:
    """A judge that asks a language model behind a chat endpoint to compare the two answers.

    The model cannot say that both answers are wrong, because its verdict 0 covers both right and
    both wrong.

    Example:
        async with EndpointJudge(EndpointConfig(url="http://judge:8000/v1", model="m")) as judge:
            judgement = await judge(case)
    """

    built_in = JUDGE

    def __init__(
        self,
        endpoint: EndpointConfig,
        replies: ReplyMemory | None = None,
        prompt: PromptText | None = None,
    ) -> None:
        self._endpoint = ChatEndpoint(endpoint, replies)
        self._prompt = prompt or built_in(self.built_in)

    @property
    def usage(self) -> EndpointUsage:
        """The numbers of replies and of tokens so far."""
        return self._endpoint.usage

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *reason: object) -> None:
        await self._endpoint.close()

    async def __call__(self, case: Case) -> Judgement:
        values = {**_texts(case), "answer_1": case.low_answer, "answer_2": case.full_answer}
        messages = self._prompt.messages(values)
        return Judgement(await ask(self._endpoint, messages, read_verdict, SCHEMA))


class EachAnswerJudge(EndpointJudge):
    """A judge that asks a language model about each answer alone: is it right?

    Two identical answers need only one request.

    Example:
        async with EachAnswerJudge(EndpointConfig(url="http://judge:8000/v1", model="m")) as judge:
            judgement = await judge(case)
    """

    built_in = JUDGE_EACH

    async def __call__(self, case: Case) -> Judgement:
        low = await self._right(case, case.low_answer)
        same = case.full_answer == case.low_answer
        full = low if same else await self._right(case, case.full_answer)
        if low == full:
            return Judgement(Verdict.TIE, both_wrong=not low)
        return Judgement(Verdict.LOW if low else Verdict.FULL)

    async def _right(self, case: Case, answer: str) -> bool:
        messages = self._prompt.messages({**_texts(case), "answer": answer})
        return await ask(self._endpoint, messages, read_correctness, SCHEMA_EACH)


def _texts(case: Case) -> dict[str, str]:
    """Return the values of the placeholders that the prompts of both judges contain."""
    truths = " or ".join((case.truth, *case.further_truths))
    return {"question": case.question, "reference": truths}


def check_judge(curate: CurateConfig) -> None:
    """Import the configured judge and check its settings.

    Raises ConfigError if the judge cannot be imported or does not take its settings.
    """
    seams.check(_reference(curate), KEY, _offered(curate), curate.judge_settings)


def build_judge(curate: CurateConfig, replies: ReplyMemory | None = None) -> Judge:
    """Build the configured judge, with the memory of its earlier replies.

    Raises ConfigError if the judge cannot be built.
    """
    offered = _offered(curate, replies)
    return seams.build(_reference(curate), Judge, KEY, offered, curate.judge_settings)


def _reference(curate: CurateConfig) -> str:
    if curate.judge == "endpoint" and curate.judge_form == "each":
        return EACH
    return BUILT_IN.get(curate.judge, curate.judge)


def _offered(curate: CurateConfig, replies: ReplyMemory | None = None) -> dict[str, object]:
    offered: dict[str, object] = {"endpoint": curate.judge_endpoint, "replies": replies}
    # Offer "prompt" only to the built-in judge. Another judge may use this name differently.
    return offered | ({"prompt": judge_prompt(curate)} if curate.judge == "endpoint" else {})
