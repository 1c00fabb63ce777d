"""Tests that generated bodies and paths, most of them wrong, get an answer or a clear refusal."""

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

CHAT = "/v1/chat/completions"
ROUTES = (
    *(CHAT, "/v1/completions", "/v1/models", "/v1/models/awares", "/low-view", "/examples"),
    *("/", "/page.css", "/healthz", "/readyz", "/metrics"),
)
FIELDS: dict[str, Any] = {
    "model": "awares",
    "max_tokens": 8,
    "max_completion_tokens": None,
    "temperature": 0.5,
    "top_p": 0.9,
    "top_k": -1,
    "seed": 1,
    "n": 1,
    "stop": ["end"],
    "logprobs": True,
    "stream": False,
    "stream_options": {"include_usage": True},
    "metadata": {"team": "a"},
    "tools": [],
    "awares": {"mode": "auto", "budget": 64},
    "response_format": {
        "type": "json_schema",
        "json_schema": {
            "name": "digit",
            "strict": True,
            "schema": {"type": "object", "properties": {"digit": {"type": "integer"}}},
        },
    },
}
"""A body that sets every field, so that random changes can affect every field."""
# All examples share one client, so hypothesis must accept a fixture that lives longer than an
# example. Shrinking is slow, and failing examples are readable without it.
QUICK = settings(
    max_examples=150,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
PLAIN = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([-(2**64), 2**63, 10**400, 1e308, float("nan"), float("-inf")])
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(["", "\x00", "\ud800", "\u202e", "\U0001f600", "<|im_end|>", "e\u0301" * 9])
)
VALUES = st.recursive(
    PLAIN | st.sampled_from([[], {}]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
LEVELS = st.sampled_from([1, 20, 60, 70, 450, 900, 980, 1100])
DEEP = LEVELS.map(lambda depth: Raw("[" * depth + "]" * depth)) | LEVELS.map(
    lambda depth: Raw('{"items":' * depth + "{}" + "}" * depth)
)


class Raw(str):
    """JSON text that `encoded` copies into a body unchanged."""


def encoded(value: Any) -> str:
    """Return the value as JSON. Copy each `Raw` in it unchanged."""
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(k)}:{encoded(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(encoded, value)) + "]"
    return json.dumps(value)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield (object or list, key or index) for each item in `value`, at any depth."""
    keys = value if isinstance(value, dict) else range(len(value))
    for key in keys:
        yield value, key
        if isinstance(value[key], dict | list):
            yield from places(value[key])


def changed(body: dict[str, Any], data: st.DataObject) -> str:
    """Return the JSON of `body` after one or two changes."""
    body = copy.deepcopy(body)
    for _ in range(data.draw(st.integers(1, 2))):
        inside, key = data.draw(st.sampled_from(list(places(body)) or [(body, "model")]))
        change = data.draw(st.sampled_from(["replace", "delete", "add", "repeat"]))
        if change == "delete":
            inside.pop(key, None) if isinstance(inside, dict) else inside.pop(key)
        elif change == "repeat" and isinstance(inside, list):
            inside += [inside[key]] * data.draw(st.integers(1, 300))
        elif change == "add" and isinstance(inside, dict):
            inside[data.draw(st.text(max_size=9))] = data.draw(VALUES)
        else:
            inside[key] = data.draw(VALUES | DEEP)
    return encoded(body)


@pytest.fixture
def client(client_for: Callable[..., TestClient]) -> Iterator[TestClient]:
    with client_for() as client:
        yield client


@QUICK
@given(data=st.data())
def test_each_changed_body_gets_an_answer_or_a_named_error(
    client: TestClient, engine: Any, chat_body: Callable[..., dict], data: st.DataObject
) -> None:
    engine.script[:] = ["7"] * 64
    text = changed(chat_body(**FIELDS), data)
    reply = client.post(CHAT, content=text.encode("utf-8", "surrogatepass"))
    assert reply.status_code in (200, 400, 404, 413), (reply.text, text[-500:])
    if reply.status_code == 200:
        return
    error = reply.json()["error"]
    assert error["type"] == "invalid_request_error" and error["message"]
    named = error["param"] is not None or "JSON" in error["message"]
    assert named or "outside the range" in error["message"] or reply.status_code == 413, error


PATHS = st.sampled_from(ROUTES) | st.builds(
    lambda before, part: f"{before}{quote(part, errors='surrogatepass')}",
    st.sampled_from(["/", "/v1/models/", "/v1/", "/examples/"]),
    st.text(max_size=12) | st.integers(0, 6000).map(lambda digits: "9" * digits + ".png"),
)


@QUICK
@given(
    path=PATHS,
    method=st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "BREW"]),
    body=st.binary(max_size=40) | VALUES.map(lambda value: encoded(value).encode()),
    kind=st.sampled_from(["application/json", "text/plain", "image/png", "a/b; charset=x", ""]),
)
def test_each_route_answers_or_refuses_each_body(
    client: TestClient, path: str, method: str, body: bytes, kind: str
) -> None:
    reply = client.request(method, path, content=body, headers={"content-type": kind})
    assert reply.status_code < 500, (method, path, reply.text)
    if reply.status_code >= 400 and method != "HEAD":
        assert reply.json()["error"]["message"]
