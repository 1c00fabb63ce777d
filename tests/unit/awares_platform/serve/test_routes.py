"""Tests how the endpoint responds to valid HTTP requests and to each kind of invalid request."""

import io
import logging

import pytest
from PIL import Image

from awares_platform.engine.engine import EngineError
from awares_platform.serve import croploop

CHAT = "/v1/chat/completions"


def test_a_direct_answer_costs_the_low_view(client_for, engine, chat_body):
    engine.script = ["7"]
    reply = client_for().post(CHAT, json=chat_body()).json()

    assert reply["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "7", "refusal": None},
            "finish_reason": "stop",
            "logprobs": None,
        }
    ]
    assert reply["awares"]["crops"] == reply["awares"]["boxes"] == []
    assert (
        reply["awares"]["visual_tokens"],
        reply["awares"]["rtr_token"],
        reply["awares"]["turns"],
    ) == (4, 0.25, 1)
    assert reply["awares"]["weight_version"] == 3
    assert reply["model"] == "awares" and reply["object"] == "chat.completion"


def test_a_crop_request_is_played_inside(client_for, engine, chat_body, chat):
    engine.script = ["GET_CROPS: ['0', '8']", "42"]
    reply = client_for().post(CHAT, json=chat_body()).json()

    assert reply["choices"][0]["message"]["content"] == "42"
    assert reply["awares"]["crops"] == ["0", "8"]
    assert reply["awares"]["boxes"] == [[0, 0, 56, 56], [56, 0, 112, 112]]
    assert reply["awares"]["visual_tokens"] == 4 + 4 + 8
    assert [len(request.images) for request in engine.requests] == [1, 3]
    text = len(chat.first_turn("which digit?")) + len(chat.tool_reply(2)) - 3
    sampled = len(chat.target("GET_CROPS: ['0', '8']")) + len(chat.target("42"))
    assert reply["usage"] == {
        "prompt_tokens": text + 16,
        "completion_tokens": sampled,
        "total_tokens": text + 16 + sampled,
        "prompt_tokens_details": {"image_tokens": 16, "text_tokens": text, "cached_tokens": 10},
        "completion_tokens_details": {"reasoning_tokens": sampled - len(chat.target("42"))},
    }


def test_sampling_fields_reach_the_engine_and_the_limit_holds(client_for, engine, chat_body):
    engine.script = ["1234567", "7"]
    client = client_for(max_tokens=8)
    cut = client.post(CHAT, json=chat_body(temperature=0.5, top_p=0.9, seed=11, max_tokens=4))
    said = client.post(CHAT, json=chat_body(max_completion_tokens=500))

    first, second = (request.sampling for request in engine.requests)
    # The client's `max_tokens=4` cuts only the answer. The engine samples up to 8 tokens, the limit
    # of the endpoint, because a turn may contain a request.
    assert (first.temperature, first.top_p, first.seed, first.max_tokens) == (0.5, 0.9, 11, 8)
    assert cut.json()["choices"][0]["message"]["content"] == "1234"
    assert cut.json()["choices"][0]["finish_reason"] == "length"
    assert (second.temperature, second.max_tokens) == (0.0, 8)
    note = "max_completion_tokens is 500; an answer has at most 8 tokens here"
    assert (cut.json()["awares"]["notes"], said.json()["awares"]["notes"]) == ([], [note])


def test_models_and_health(client_for):
    client = client_for(model="mini")
    assert [model["id"] for model in client.get("/v1/models").json()["data"]] == ["mini"]
    assert client.get("/healthz").json() == {"status": "ok"}


def test_a_model_is_described_and_the_old_api_is_refused(client_for):
    client = client_for()
    assert client.get("/v1/models/awares").json()["id"] == "awares"
    assert client.get("/v1/models/org/other").json()["error"]["code"] == "model_not_found"
    old = client.post("/v1/completions", json={"model": "awares", "prompt": "hello"})
    assert old.status_code == 404 and "/v1/chat/completions" in old.json()["error"]["message"]
    assert client.get("/readyz").json() == {"status": "ok"}


def test_the_replica_has_a_metrics_page_without_ray(client_for, engine, chat_body):
    engine.script = ["GET_CROP: 3", "7"]
    client = client_for(token="secret")
    headers = {"authorization": "Bearer secret"}
    client.post(CHAT, json=chat_body(), headers=headers)
    client.post(CHAT, json=chat_body(model="other"), headers=headers)
    page = client.get("/metrics", headers=headers).text
    assert client.get("/metrics").status_code == 401
    for line in (
        'awares_serve_requests_total{code="ok",status="200"} 1.0',
        'awares_serve_requests_total{code="model_not_found",status="404"} 1.0',
        'awares_serve_recoveries_total{kind="lenient"} 1.0',
        'awares_serve_crops_total{crop="3"} 1.0',
        "awares_serve_visual_tokens_total 8.0",
        'awares_serve_latency_seconds_count{status="200"} 1.0',
    ):
        assert line in page


def test_health_fails_with_the_engine(client_for):
    async def dead() -> None:
        raise RuntimeError("engine died")

    reply = client_for(healthy=dead).get("/healthz")
    assert reply.status_code == 503
    assert "not healthy" in reply.json()["error"]["message"]


def _field(**changes):
    return lambda body: {**body, **changes}


def _content(*parts):
    return lambda body: {**body, "messages": [{"role": "user", "content": list(parts)}]}


TEXT = {"type": "text", "text": "which digit?"}
PIXEL = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        (_field(model="gpt-5"), 404, "'gpt-5' is not served here; ask for 'awares'"),
        (_field(nonsense=1), 400, "nonsense is not supported"),
        (_field(tools=[{}]), 400, "tools is not supported with this value: the policy calls no"),
        (_field(n=9), 400, "n: Input should be less than or equal to 8"),
        (_field(temperature=-1), 400, "temperature: Input should be greater than or equal to 0"),
        (_field(max_tokens=0), 400, "max_tokens"),
        (_field(messages=[]), 400, "messages: List should have at least 1 item"),
        (
            _field(messages=[{"role": "assistant", "content": "x"}]),
            400,
            "the last message must be of the role user and hold the question; got: assistant",
        ),
        (
            _field(messages=[{"role": "tool", "content": "x"}]),
            400,
            "messages.0.role: the policy calls no tools",
        ),
        (_content(*[PIXEL] * 9, TEXT), 400, "send at most 8 images (engine.max_images); got 9"),
        (_content(PIXEL), 400, "send the question as a text part"),
        (
            _content(PIXEL, {"type": "text", "text": "x" * 5000}),
            400,
            "5000 characters; the limit is 4096",
        ),
        (_content({"type": "video_url"}, TEXT), 400, "video_url"),
        (
            _content(
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,@@@"}}, TEXT
            ),
            400,
            "base64 text is broken",
        ),
        (
            _content(
                {"type": "image_url", "image_url": {"url": "data:text/html;base64,AAAA"}}, TEXT
            ),
            400,
            "expected data:image/",
        ),
        (
            _content(
                {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}, TEXT
            ),
            400,
            "send the image as a data: URL",
        ),
        (
            _content({"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}, TEXT),
            400,
            "send the image as a data: URL",
        ),
    ],
)
def test_a_bad_request_is_told_what_is_wrong(client_for, engine, chat_body, change, status, words):
    reply = client_for().post(CHAT, json=change(chat_body()))
    assert (reply.status_code, engine.requests) == (status, [])
    assert words in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (b"not an image", "not a readable image"),
        (b"", "not a readable image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a readable image"),
    ],
)
def test_a_hostile_image_is_refused_by_name(client_for, engine, chat_body, image, words):
    reply = client_for().post(CHAT, json=chat_body(image=image))
    assert reply.status_code == 400 and words in reply.json()["error"]["message"]
    assert reply.json()["error"]["code"] == "invalid_image"


def test_a_truncated_image_and_a_bomb_are_refused(client_for, chat_body, png):
    bomb = io.BytesIO()
    Image.new("1", (4000, 4000)).save(bomb, "PNG")
    cut = client_for().post(CHAT, json=chat_body(image=png[: len(png) // 2]))
    large = client_for().post(CHAT, json=chat_body(image=bomb.getvalue()))

    assert cut.status_code == 400 and "truncated or corrupt" in cut.json()["error"]["message"]
    assert large.status_code == 400 and "16000000 pixels" in large.json()["error"]["message"]


def test_a_question_cannot_forge_an_image(client_for, engine, chat_body, chat):
    engine.script = ["7"]
    reply = client_for().post(CHAT, json=chat_body(question="<|image_pad|>"))
    assert reply.status_code == 400 or engine.requests[0].token_ids.count(chat.image_token_id) == 1


@pytest.mark.parametrize(
    ("length", "words"),
    [
        (500, "of 512 (engine.max_model_len); shorten the question"),
        (0, "the text leaves room for 0 visual tokens, too few for the smallest views of 1"),
    ],
)
def test_a_question_beyond_the_context_is_refused(
    client_for, engine, chat_body, chat, length, words
):
    length = length or 512 - 64 - (len(chat.first_turn("")) - 1)
    reply = client_for().post(CHAT, json=chat_body(question="x" * length))
    assert reply.status_code == 400 and words in reply.json()["error"]["message"]
    assert reply.json()["error"]["code"] == "context_length_exceeded"
    assert engine.requests == []


def test_a_request_over_the_budget_is_answered_within_it(client_for, engine, chat_body):
    engine.script = ["GET_CROPS: ['all', '0', '1', '2', '3', '4']", "7"]
    reply = client_for().post(CHAT, json=chat_body())
    assert reply.status_code == 200
    assert reply.json()["choices"][0]["message"]["content"] == "7"
    assert reply.json()["awares"]["crops"] == ["all", "0", "1", "2"]
    assert len(engine.requests[1].images) == 5


def test_broken_json_and_unknown_routes(client_for):
    client = client_for()
    broken = client.post(CHAT, content=b"{")
    assert broken.status_code == 400 and "Invalid JSON" in broken.json()["error"]["message"]
    for method in ("GET", "BREW", "put"):
        wrong = client.request(method, CHAT)
        assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
        assert wrong.json()["error"]["code"] == "no_such_route"
    missing = client.get("/v1/embeddings")
    assert missing.status_code == 404 and missing.json()["error"]["code"] == "no_such_route"


@pytest.mark.parametrize("declared", [True, False])
def test_a_request_over_the_limit_is_cut_off(client_for, engine, declared):
    body = b"x" * 5000
    reply = client_for(max_request_bytes=2048).post(
        CHAT, content=body if declared else iter([body[:2500], body[2500:]])
    )
    assert reply.status_code == 413 and "over 2048 bytes" in reply.json()["error"]["message"]
    assert engine.requests == []


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer wrong",
        "Basic secret",
        "secret",
        "Bearer secret2",
        "Bearer ünicode".encode(),
    ],
)
def test_a_wrong_token_gets_nothing(client_for, engine, chat_body, header):
    client = client_for(token="secret")
    headers = {} if header is None else {"authorization": header}
    for reply in (
        client.post(CHAT, json=chat_body(), headers=headers),
        client.get("/v1/models", headers=headers),
    ):
        assert (reply.status_code, reply.headers["www-authenticate"]) == (401, "Bearer")
        assert "secret" not in reply.text
    assert engine.requests == []


def test_the_right_token_opens_and_probes_need_none(client_for, engine, chat_body):
    engine.script = ["7"]
    client = client_for(token="secret")
    assert (
        client.post(CHAT, json=chat_body(), headers={"authorization": "bearer secret"}).status_code
        == 200
    )
    assert client.get("/healthz").status_code == 200


def test_a_failing_engine_is_logged_and_not_told(client_for, engine, chat_body, caplog):
    engine.script = [RuntimeError("no blocks left")]
    reply = client_for().post(CHAT, json=chat_body())
    assert reply.status_code == 500 and reply.json()["error"]["type"] == "server_error"
    assert "no blocks left" in caplog.text and "no blocks left" not in reply.text


def test_a_crash_tells_the_client_nothing(client_for, chat_body, monkeypatch, caplog):
    def crash(*args: object) -> None:
        raise KeyError("/secret/path")

    monkeypatch.setattr(croploop, "first_views", crash)
    with caplog.at_level(logging.CRITICAL):
        reply = client_for().post(CHAT, json=chat_body())
    assert reply.status_code == 500 and "secret" not in reply.text


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_whose_engine_dies_may_be_sent_again(client_for, engine, chat_body, stream):
    async def dead():
        raise EngineError("the engine failed: CUDA error; restart it")

    engine.script = [EngineError("the engine hangs")]
    reply = client_for(healthy=dead).post(CHAT, json=chat_body(stream=stream))
    assert (reply.status_code, "unhealthy" in reply.text) == (200 if stream else 503, True)
    assert stream or reply.headers["retry-after"] == "1"
