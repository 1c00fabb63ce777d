"""Tests that broken and hostile bodies get a small, quick and correct refusal."""

import base64
import json
import time
import tracemalloc

import pytest

from awares_platform.config.serve import ServeConfig
from awares_platform.serve.data_url import decode_data_url
from awares_platform.serve.errors import RequestError
from awares_platform.serve.json_body import parse_json
from awares_platform.serve.json_grammar import json_grammar
from awares_platform.serve.openai import parse_request

CHAT = "/v1/chat/completions"
HELLO = '{"model": "awares", "messages": [{"role": "user", "content": "hello"}]'


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ('"seed": 9223372036854775808', "seed: Input should be less than"),
        ('"seed": -9223372036854775809', "seed: Input should be greater than"),
        ('"seed": 1.5', "seed: Input should be a valid integer"),
        ('"seed": true', "seed: Input should be a valid integer"),
        ('"n": true', "n: Input should be a valid integer"),
        ('"n": "1"', "n: Input should be a valid integer"),
        ('"stream": 0', "stream: Input should be a valid boolean"),
        ('"stream": "yes"', "stream: Input should be a valid boolean"),
        ('"logprobs": 1', "logprobs: Input should be a valid boolean"),
        ('"presence_penalty": false', "presence_penalty is not supported"),
        ('"temperature": 1e-400', "1e-400 is outside the range of a float"),
        ('"temperature": 1e400', "1e400 is outside the range of a float"),
        ('"temperature": NaN', "NaN is no number of JSON"),
        ('"temperature": "0"', "temperature: Input should be a valid number"),
        ('"max_tokens": 1e3', "max_tokens: Input should be a valid integer"),
        ('"max_tokens": ' + "9" * 5000, "Invalid JSON"),
        ('"user": "\\ud800"', "half of a surrogate pair"),
        ('"stop": ["a", "b", "c", "d", "e"]', "at most 4 strings"),
        ('"response_format": {"type": "yaml"}', "response_format"),
        (
            '"response_format": {"type": "json_schema", "json_schema": '
            '{"name": "a", "schema": {"type": "nonsense"}}}',
            "response_format.json_schema.schema cannot be enforced",
        ),
        (
            '"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": '
            '{"properties": {"contains": {"type": "integer", "multipleOf": 2}}}}}',
            "schema cannot be enforced: multipleOf is not supported",
        ),
        (
            '"response_format": {"type": "json_schema", "json_schema": '
            '{"name": "a", "schema": {"$ref": "http://a/b"}}}',
            "$ref must begin with #, because no other document is read",
        ),
        (
            '"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": '
            + '{"items": ' * 65
            + "{}"
            + "}" * 67,
            "response_format.json_schema.schema has over 64 levels",
        ),
        (
            '"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": '
            + '{"enum": '
            + "[" * 950
            + "]" * 950
            + "}}}",
            "response_format.json_schema.schema has over 64 levels",
        ),
        ('"awares": {"mode": "best"}', "awares.mode"),
        ('"awares": {"budget": 0}', "awares.budget"),
    ],
)
def test_a_wrong_value_is_named(client_for, engine, fields, words):
    reply = client_for().post(CHAT, content=f"{HELLO}, {fields}}}".encode())
    assert reply.status_code == 400 and words in reply.json()["error"]["message"]
    assert engine.requests == []


def test_a_schema_may_have_64_levels():
    schema = json.loads('{"items": ' * 63 + "{}" + "}" * 63)
    assert len(json_grammar(schema)) < 2**17


@pytest.mark.parametrize("seed", [2**63 - 1, -(2**63), -1, 0])
def test_every_seed_of_openai_is_one_of_the_engine(client_for, engine, chat_body, seed):
    engine.script = ["7"]
    assert client_for().post(CHAT, json=chat_body(seed=seed)).status_code == 200
    assert 0 <= engine.requests[0].sampling.seed < 2**63


@pytest.mark.parametrize(
    "body",
    [
        b'{"model": "awares", "messages": [' + b"0," * 2_000_000 + b"0]}",
        b'{"messages": [' + b"{}," * 1_300_000 + b"{}]}",
        b"[" * 4_000_000,
        b"{" + b",".join(b'"%d":0' % number for number in range(300_000)) + b"}",
        HELLO.encode() + b', "x": ' + b"[" * 15_000 + b"]" * 15_000 + b"}",
        HELLO.encode() + b', "stop": ["' + b'","' * 10_000 + b'"]}',
        b'{"model": "awares", "messages": [' + b'{"role": "x"},' * 9_000 + b"{}]}",
        b"," * 30_000 + b'"' + b'\\"' * 2_000_000,
        b"\xff\xfe{",
        b"null",
        b"",
    ],
    ids=range(11),
)
def test_a_body_of_megabytes_is_refused_in_a_moment(body):
    tracemalloc.start()
    started = time.process_time()
    with pytest.raises(RequestError) as refused:
        parse_request(body, ServeConfig())
    seconds = time.process_time() - started
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert refused.value.status in (400, 413)
    assert seconds < 2 and peak < 30 * 2**20


def test_marks_in_a_text_are_no_values():
    assert parse_json(json.dumps({"text": '[{,"\\' * 10_000}).encode())["text"][:3] == "[{,"


@pytest.mark.parametrize(
    "body",
    [
        {"model": "m" * 600_000, "messages": [{"role": "user", "content": "x"}]},
        {"model": "awares", "messages": [{"role": "r" * 600_000, "content": "x"}]},
        {"model": "awares", "messages": [{"role": "user", "content": [{"type": "t" * 600_000}]}]},
        {"model": "awares", "messages": [{"role": "user", "content": "x"}], "k" * 600_000: 1},
        {"model": "awares", "messages": [{"role": "user", "content": "x" * 600_000}]},
        {"model": "awares", "messages": [{"role": "user", "content": "x", "k" * 600_000: 1}]},
    ],
)
def test_an_error_does_not_echo_the_input(client_for, body):
    reply = client_for().post(CHAT, content=json.dumps(body))
    assert reply.status_code in (400, 404) and len(reply.content) < 1000


def test_a_long_path_is_not_echoed(client_for):
    assert len(client_for().get("/" + "p" * 60_000).content) < 1000


PIXELS = bytes(range(251)) * 2
PLAIN = base64.b64encode(PIXELS).decode()


@pytest.mark.parametrize(
    "url",
    [
        f"data:image/png;base64,{PLAIN}",
        f"DATA:image/PNG;BASE64,{PLAIN}",
        f"data:image/png;charset=utf-8;name=a.png;base64,{PLAIN}",
        f"data:image/svg+xml ; base64 ,{PLAIN}",
        f"data:;base64,{PLAIN}",
        f"data:application/octet-stream;base64,{PLAIN}",
        f"data:image/png;base64,{PLAIN.rstrip('=')}",
        f"data:image/png;base64,{base64.encodebytes(PIXELS).decode()}",
        f"data:image/png;base64, {base64.encodebytes(PIXELS).decode()}".replace("\n", "\r\n"),
        f"data:image/png;base64,{base64.urlsafe_b64encode(PIXELS).decode()}",
        "data:image/png;base64,"
        + PLAIN.replace("+", "%2B").replace("/", "%2F").replace("=", "%3D"),
    ],
)
def test_every_usual_data_url_is_read(url):
    assert decode_data_url(url) == PIXELS


@pytest.mark.parametrize(
    "url",
    [
        "data:image/png;base64,AA\u0663A",
        "data:image/png;base64,\uff21\uff21\uff21\uff21",
        "data:image/png;base64,A",
        "data:image/png;base64,AAAA*AAA",
        "data:image/png;base64,AA=A",
        "data:image/png,AAAA",
        "data:text/html;base64,AAAA",
        "data:image/png;base64" + ";a=b" * 200_000 + ",AAAA",
        "data:" + "x" * 600_000,
    ],
)
def test_a_broken_data_url_is_refused(client_for, chat_body, url):
    reply = client_for().post(CHAT, json=chat_body(image=url))
    assert reply.status_code == 400 and len(reply.content) < 1000
    assert reply.json()["error"]["code"] == "invalid_image"
