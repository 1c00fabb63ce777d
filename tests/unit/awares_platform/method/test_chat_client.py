"""Tests the client of a chat endpoint, and the judge and grounding that use the client."""

import asyncio
import base64
import io
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image

from awares.errors import ConfigError, DataError
from awares.labels import Case, Verdict
from awares.sample import Sample
from awares_platform.config.curate import EndpointConfig
from awares_platform.method.chat_client import ChatEndpoint, EndpointBusy, EndpointError
from awares_platform.method.grounding import EndpointGrounding
from awares_platform.method.judge import EndpointJudge
from tests import hostile
from tests.chat_server import ChatServer, serving


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with serving() as server:
        yield server


def config(server: ChatServer, **changes: Any) -> EndpointConfig:
    return EndpointConfig(
        **({"url": server.url, "model": "judge-70b", "retry_budget_s": 5.0} | changes)
    )


def complete(settings: EndpointConfig) -> str | None:
    async def ask() -> str | None:
        async with ChatEndpoint(settings) as endpoint:
            return await endpoint.complete([{"role": "user", "content": "2 + 2?"}])

    return asyncio.run(ask())


def test_a_request_is_greedy_names_the_model_and_carries_the_key(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUDGE_KEY", "secret")
    server.reply = lambda body, count: (200, "4")
    assert complete(config(server, api_key_variable="JUDGE_KEY", max_tokens=7)) == "4"
    assert server.bodies == [
        {
            "model": "judge-70b",
            "messages": [{"role": "user", "content": "2 + 2?"}],
            "temperature": 0,
            "max_tokens": 7,
        }
    ]
    assert server.headers[0]["Authorization"] == "Bearer secret"


def test_a_busy_endpoint_is_asked_again(server: ChatServer) -> None:
    server.reply = lambda body, count: (429, "slow down") if count == 0 else (200, "4")
    assert complete(config(server)) == "4"
    assert len(server.bodies) == 2


def test_a_refusal_is_not_retried(server: ChatServer) -> None:
    server.reply = lambda body, count: (401, "who are you")
    with pytest.raises(EndpointError, match="refused model 'judge-70b' with 401: who are you"):
        complete(config(server))
    assert len(server.bodies) == 1


def test_an_endpoint_that_is_down_is_named_once_the_budget_is_spent() -> None:
    with pytest.raises(EndpointBusy, match="http://127.0.0.1:1/v1/chat/completions is unreachable"):
        complete(EndpointConfig(url="http://127.0.0.1:1/v1", model="m", retry_budget_s=0.5))


def test_another_protocol_is_named(server: ChatServer) -> None:
    server.reply = lambda body, count: (200, "x")
    server.http.RequestHandlerClass.do_POST = lambda self: (
        self.send_response(200),
        self.end_headers(),
        self.wfile.write(b"{}"),
    )  # type: ignore[attr-defined]
    with pytest.raises(EndpointError, match="does not speak the OpenAI chat protocol"):
        complete(config(server))


def test_a_missing_key_is_named_before_any_request(server: ChatServer) -> None:
    with pytest.raises(ConfigError, match="NO_SUCH_KEY"):
        complete(config(server, api_key_variable="NO_SUCH_KEY"))


def test_llm_judge_sends_texts_in_order_and_reads_the_digit(server: ChatServer) -> None:
    server.reply = lambda body, count: (
        200,
        "2" if "Answer 2: seven" in body["messages"][1]["content"] else "no idea",
    )

    async def judge(case: Case) -> Verdict:
        async with EndpointJudge(config(server)) as endpoint_judge:
            return (await endpoint_judge(case)).verdict

    assert asyncio.run(judge(Case("digit?", "7", "one", "seven"))) is Verdict.FULL
    assert (
        server.bodies[0]["messages"][1]["content"]
        == "Question: digit?\nReference answer: 7\nAnswer 1: one\nAnswer 2: seven\nVerdict:"
    )
    with pytest.raises(DataError, match="not a verdict"):
        asyncio.run(judge(Case("digit?", "7", "one", "two")))


def test_grounding_sends_the_image_and_scales_the_boxes(server: ChatServer) -> None:
    server.reply = lambda body, count: (
        200,
        "{'question': [[0, 0, 250, 250]], 'answer': [[500, 500, 1000, 1000]]}",
    )
    image = Image.new("RGB", (112, 56), (10, 20, 30))

    async def ground() -> tuple[tuple[int, int, int, int], ...]:
        async with EndpointGrounding(config(server), lambda digest: image) as grounding:
            return await grounding.boxes(Sample("s", "0" * 64, "which digit?", "7"))

    assert asyncio.run(ground()) == ((0, 0, 28, 14), (56, 28, 112, 56))
    picture, text = server.bodies[0]["messages"][0]["content"]
    sent = Image.open(
        io.BytesIO(
            base64.b64decode(picture["image_url"]["url"].removeprefix("data:image/png;base64,"))
        )
    )
    assert sent.size == (112, 56) and sent.getpixel((0, 0)) == (10, 20, 30)
    assert text["text"].endswith("Question: which digit?")


def test_a_proxy_is_asked_for_remote_endpoints_only(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.reply = lambda body, count: (200, "4")
    with hostile.proxy() as proxy:
        for name, value in hostile.proxies(proxy.server_port).items():
            monkeypatch.setenv(name, value)
        assert complete(config(server)) == "4"
        local = server.url.replace("127.0.0.1", "localhost")
        assert complete(config(server, url=local)) == "4"
        assert proxy.asked == []
        with pytest.raises(EndpointError, match="refused model 'judge-70b' with 403"):
            complete(config(server, url="http://judge.example.invalid/v1"))
    assert proxy.asked == ["POST http://judge.example.invalid/v1/chat/completions"]


@pytest.mark.parametrize("url", ["socks5://127.0.0.1:9", "socks://127.0.0.1:9", "::::"])
def test_a_proxy_that_cannot_be_used_matters_to_remote_endpoints_only(
    url: str, server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.reply = lambda body, count: (200, "4")
    monkeypatch.setenv("ALL_PROXY", url)
    assert complete(config(server)) == "4"
    remote = config(server, url="http://judge.example.invalid/v1", retry_budget_s=0.1)
    with pytest.raises(
        ConfigError, match=r"judge\.example\.invalid.*proxy of ALL_PROXY .*NO_PROXY"
    ):
        ChatEndpoint(remote)
    monkeypatch.setenv("NO_PROXY", "judge.example.invalid")
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(EndpointBusy, match="is unreachable"):
        complete(remote)
