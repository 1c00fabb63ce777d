"""Builds the configured judge, and defines EndpointJudge (paper, section 3.2).

A judge sees the question, the reference answer, and the policy's answers at low and at full
resolution. A judge never sees the image.
"""

from typing import Self

from awares.labels import Case, Judge, Judgement
from awares_platform.config.curate import CurateConfig, EndpointConfig
from awares_platform.method import prompt_file, seams
from awares_platform.method.asking import ask
from awares_platform.method.chat_client import ChatEndpoint, EndpointUsage, ReplyMemory
from awares_platform.method.verdicts import read_verdict

KEY = "curate.judge"
BUILT_IN = {
    "match": "awares.labels:MatchJudge",
    "endpoint": "awares_platform.method.judge:EndpointJudge",
}

SCHEMA = {
    "type": "object",
    "properties": {"verdict": {"type": "integer", "enum": [0, 1, 2]}},
    "required": ["verdict"],
    "additionalProperties": False,
}


class EndpointJudge:
    """A judge that asks a language model behind a chat endpoint.

    The judge's verdict 0 has two meanings: both answers are right, or both are wrong.

    Example:
        async with EndpointJudge(EndpointConfig(url="http://judge:8000/v1", model="m")) as judge:
            judgement = await judge(case)
    """

    def __init__(self, endpoint: EndpointConfig, replies: ReplyMemory | None = None) -> None:
        self._endpoint = ChatEndpoint(endpoint, replies)
        self._prompt = prompt_file.prompt(prompt_file.JUDGE)

    @property
    def usage(self) -> EndpointUsage:
        """The requests and tokens so far."""
        return self._endpoint.usage

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *reason: object) -> None:
        await self._endpoint.close()

    async def __call__(self, case: Case) -> Judgement:
        truths = " or ".join((case.truth, *case.further_truths))
        text = (
            f"Question: {case.question}\nReference answer: {truths}\n"
            f"Answer 1: {case.low_answer}\nAnswer 2: {case.full_answer}\nVerdict:"
        )
        messages = [{"role": "system", "content": self._prompt}, {"role": "user", "content": text}]
        return Judgement(await ask(self._endpoint, messages, read_verdict, SCHEMA))


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
    return BUILT_IN.get(curate.judge, curate.judge)


def _offered(curate: CurateConfig, replies: ReplyMemory | None = None) -> dict[str, object]:
    return {"endpoint": curate.judge_endpoint, "replies": replies}
