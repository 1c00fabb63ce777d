"""Tests how the judge and the grounding deal with a real HTTP server that misbehaves."""

import asyncio
import json
import time
from collections.abc import Iterator
from email.utils import formatdate
from typing import Any

import pytest
from PIL import Image

from awares.errors import DataError
from awares.labels import Case, Judgement, Verdict
from awares.sample import Sample
from awares_platform.config.curate import CurateConfig, EndpointConfig
from awares_platform.method.chat_client import EndpointError, EndpointUsage, retry_after
from awares_platform.method.grounding import EndpointGrounding, Located
from awares_platform.method.judge import EachAnswerJudge, EndpointJudge, build_judge
from awares_platform.method.spoken import Unreadable
from tests.chat_server import ChatServer, message, serving

CASE = Case("digit?", "7", "one", "seven")


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with serving() as server:
        yield server


def endpoint(server: ChatServer, **changes: Any) -> EndpointConfig:
    settings = {"url": server.url, "model": "judge-70b", "retry_budget_s": 5.0} | changes
    return EndpointConfig.model_validate(settings)


def judge(config: EndpointConfig, count: int = 1) -> tuple[list[Any], EndpointUsage]:
    """Judge `count` cases at once, and return the verdicts or errors, and the usage."""

    async def run() -> tuple[list[Any], EndpointUsage]:
        async with EndpointJudge(config) as judge:
            cases = [judge(CASE) for _ in range(count)]
            found = await asyncio.gather(*cases, return_exceptions=True)
            return [
                one.verdict if isinstance(one, Judgement) else one for one in found
            ], judge.usage

    return asyncio.run(run())


def test_a_reply_that_does_not_parse_is_asked_once_more_with_the_reason(server: ChatServer) -> None:
    server.reply = lambda body, count: (200, "both" if count == 0 else "2")
    assert judge(endpoint(server)) == ([2], EndpointUsage(2, 60, 4))
    said, reason = server.bodies[1]["messages"][2:]
    assert said == {"role": "assistant", "content": "both"}
    assert "is not a verdict 0, 1 or 2: 'both'" in reason["content"]


@pytest.mark.parametrize(
    ("status", "said", "reason", "requests"),
    [
        (200, None, "empty", 2),
        (200, "I'm sorry, but I can't help with that.", "refusal", 2),
        (200, message("", "content_filter"), "filter", 1),
        (200, message(None, refusal="I can't."), "refusal", 1),
        (400, {"error": {"code": "content_filter"}}, "filter", 2),
        (400, {"error": {"code": "context_length_exceeded"}}, "request", 2),
    ],
)
def test_a_refusal_costs_its_sample_only(
    server: ChatServer, status: int, said: Any, reason: str, requests: int
) -> None:
    """Check that a reply without a verdict becomes an Unreadable with its reason.

    The judge asks a second time after most such replies. After status 400, it sends no JSON schema.
    """
    server.reply = lambda body, count: (status, said)
    [found], _ = judge(endpoint(server))
    assert isinstance(found, Unreadable) and found.reason == reason
    assert len(server.bodies) == requests


def test_a_schema_is_sent_until_the_server_refuses_it(server: ChatServer) -> None:
    server.reply = lambda body, count: (
        (400, "response_format is not supported") if "response_format" in body else (200, "2")
    )

    async def two() -> None:
        async with EndpointJudge(endpoint(server)) as one:
            assert [(await one(CASE)).verdict for _ in range(2)] == [2, 2]

    asyncio.run(two())
    assert ["response_format" in body for body in server.bodies] == [True, False, False]
    schema = server.bodies[0]["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["verdict"]["enum"] == [0, 1, 2]


@pytest.mark.parametrize(
    ("right", "verdict", "both_wrong"),
    [
        ({"one": True, "seven": True}, 0, False),
        ({"one": False, "seven": False}, 0, True),
        ({"one": True, "seven": False}, 1, False),
        ({"one": False, "seven": True}, 2, False),
    ],
)
def test_a_judge_of_each_answer_alone_tells_both_wrong_from_both_right(
    server: ChatServer, right: dict[str, bool], verdict: int, both_wrong: bool
) -> None:
    def reply(body: Any, count: int) -> tuple[int, str]:
        answer = body["messages"][1]["content"].split("\nAnswer: ")[1].split("\n")[0]
        return 200, json.dumps({"right": right[answer]})

    async def judged(case: Case) -> Judgement:
        settings = {"judge": "endpoint", "judge_form": "each", "judge_endpoint": endpoint(server)}
        judge = build_judge(CurateConfig.model_validate(settings))
        assert isinstance(judge, EachAnswerJudge)
        async with judge:
            return await judge(case)

    server.reply = reply
    assert asyncio.run(judged(CASE)) == Judgement(Verdict(verdict), both_wrong)
    assert len(server.bodies) == 2
    same = Case("digit?", "7", "one", "one")
    assert asyncio.run(judged(same)) == Judgement(Verdict.TIE, not right["one"])
    assert len(server.bodies) == 3, "equal answers are one question"


def test_retry_after_is_honoured_by_all_requests(server: ChatServer) -> None:
    server.reply = lambda body, count: (429, "slow down") if count == 0 else (200, "2")
    server.header = {"retry-after": "1"}
    started = time.monotonic()
    found, _ = judge(endpoint(server, in_flight=1), 2)
    assert found == [2, 2] and 1.0 <= time.monotonic() - started < 4.0


def test_a_wait_beyond_the_budget_is_named_at_once(server: ChatServer) -> None:
    server.reply = lambda body, count: (429, "quota")
    server.header = {"retry-after": "600"}
    started = time.monotonic()
    [found], _ = judge(endpoint(server))
    assert isinstance(found, EndpointError) and "asks to wait 600 s" in str(found)
    assert time.monotonic() - started < 2.0


def test_a_retry_after_header_holds_seconds_or_a_date() -> None:
    assert retry_after("2") == 2.0
    assert 5 < retry_after(formatdate(time.time() + 10, usegmt=True)) <= 10
    assert [retry_after(value) for value in ("", "soon", "-3", "nan", "inf")] == [0.0] * 5


@pytest.mark.parametrize("limit", [{"requests_per_minute": 300}, {"tokens_per_minute": 9600}])
def test_a_rate_is_kept(server: ChatServer, limit: dict[str, int]) -> None:
    server.reply = lambda body, count: (200, "2")
    started = time.monotonic()
    found, _ = judge(endpoint(server, in_flight=1, **limit), 4)
    assert found == [2] * 4 and time.monotonic() - started >= 3 * 0.2


def test_one_refused_sample_leaves_the_others_of_its_batch(server: ChatServer) -> None:
    def reply(body: Any, count: int) -> tuple[int, str]:
        text = body["messages"][0]["content"][1]["text"]
        refused = "who" in text
        return 200, "I cannot identify people." if refused else "[[100, 200, 300, 400]]"

    server.reply = reply
    image = Image.new("RGB", (1000, 1000))
    samples = [Sample(word, "0" * 64, word, "7") for word in ("who", "what", "where")]

    async def run() -> list[Located | DataError]:
        async with EndpointGrounding(endpoint(server), lambda _: image) as grounding:
            return await grounding.locate(samples)

    refused, *found = asyncio.run(run())
    assert isinstance(refused, Unreadable) and refused.reason == "refusal"
    assert found == [Located(((100, 200, 300, 400),))] * 2
