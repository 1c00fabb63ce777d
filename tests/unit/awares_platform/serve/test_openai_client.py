"""Tests the endpoint with the official `openai` client, with and without streaming."""

import json

import openai
import pytest
from pydantic import BaseModel

from awares.generate import GenerateRequest

CHAT = "/v1/chat/completions"


class Reading(BaseModel):
    """A structured answer."""

    answer: str


@pytest.fixture
def official(client_for) -> openai.OpenAI:
    http = client_for(token="secret")
    return openai.OpenAI(
        api_key="secret", base_url="http://testserver/v1", http_client=http, max_retries=0
    )


def test_a_question_and_the_models(official, engine, chat_body):
    engine.script = ["GET_CROPS: ['0']", "42"]
    reply = official.chat.completions.create(**chat_body(), extra_body={"awares": {"mode": "auto"}})
    assert reply.choices[0].message.content == "42" and reply.usage is not None
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens
    assert reply.model_extra is not None and reply.model_extra["awares"]["crops"] == ["0"]
    assert [model.id for model in official.models.list()] == ["awares"]
    assert official.models.retrieve("awares").id == "awares"


def test_a_stream_tells_of_crops_before_the_answer(official, engine, chat_body):
    engine.script = ["GET_CROPS: ['0', '8']", "42"]
    body = chat_body(stream=True, stream_options={"include_usage": True})
    chunks = list(official.chat.completions.create(**body))
    events = [
        [view["region"] for view in chunk.model_extra["awares"]["views"]]
        if chunk.model_extra.get("awares", {}).get("event") == "crops"
        else chunk.choices[0].delta.content or chunk.choices[0].finish_reason
        for chunk in chunks[:-1]
    ]
    assert events == [None, ["0", "8"], "42", "stop"]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens > 2
    assert chunks[-2].model_extra["awares"]["visual_tokens"] == 16


def test_a_stream_without_usage_ends_with_the_answer(official, engine, chat_body):
    engine.script = ["7", "8"]
    chunks = list(official.chat.completions.create(**chat_body(stream=True, n=2)))
    assert [c.choices[0].finish_reason for c in chunks if c.choices[0].finish_reason] == [
        "stop"
    ] * 2
    assert {c.choices[0].index for c in chunks} == {0, 1}


def test_a_structured_answer_is_parsed(official, engine, chat_body):
    engine.script = ["7", '{"answer": "7"}']
    reply = official.chat.completions.parse(**chat_body(), response_format=Reading)
    assert reply.choices[0].message.parsed == Reading(answer="7")


def test_errors_have_the_types_of_the_client(official, engine, chat_body):
    with pytest.raises(openai.NotFoundError, match="'other' is not served here"):
        official.chat.completions.create(**{**chat_body(), "model": "other"})
    with pytest.raises(openai.BadRequestError, match="tools is not supported") as refused:
        official.chat.completions.create(**chat_body(tools=[{"type": "function"}]))
    assert refused.value.param == "tools"
    engine.script = [RuntimeError("no blocks left")] * 2
    with pytest.raises(openai.InternalServerError, match="could not finish"):
        official.chat.completions.create(**chat_body())
    with pytest.raises(openai.APIError, match="could not finish"):
        list(official.chat.completions.create(**chat_body(stream=True)))


def test_a_bad_image_is_refused_before_a_stream_starts(client_for, chat_body):
    reply = client_for().post(CHAT, json=chat_body(image=b"rubbish", stream=True))
    assert reply.status_code == 400 and "not a readable image" in reply.json()["error"]["message"]


def test_a_stream_is_server_sent_events(client_for, engine, chat_body):
    engine.script = ["7"]
    reply = client_for().post(CHAT, json=chat_body(stream=True))
    assert reply.headers["content-type"].startswith("text/event-stream")
    events = reply.text.strip().split("\n\n")
    assert all(event.startswith("data: ") for event in events) and events[-1] == "data: [DONE]"
    chunks = [json.loads(event[6:]) for event in events[:-1]]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1


def test_a_client_that_leaves_a_stream_stops_the_engine(crop_loop, engine, chat_body, client_for):
    import asyncio

    cancelled = []

    async def forever(request: GenerateRequest):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(request.session)
            raise

    crop_loop._generate = forever
    app = client_for().app
    body = json.dumps(chat_body(stream=True)).encode()

    async def leave() -> None:
        sent, inbox = asyncio.Event(), [{"type": "http.request", "body": body}]

        async def receive():
            if inbox:
                return inbox.pop()
            await sent.wait()
            return {"type": "http.disconnect"}

        async def send(message):
            if message["type"] == "http.response.body":
                sent.set()

        scope = {"type": "http", "method": "POST", "path": CHAT, "headers": [], "query_string": b""}
        await asyncio.wait_for(app({**scope, "asgi": {"spec_version": "2.3"}}, receive, send), 10)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    asyncio.run(leave())
    assert len(cancelled) == 1
