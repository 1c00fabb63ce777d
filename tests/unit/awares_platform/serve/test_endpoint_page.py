"""Tests the HTTP routes of the endpoint's web page: files, headers, examples and the low view."""

import io
import re
from importlib.resources import files

import pytest
from PIL import Image

from awares_platform.serve import page

ASSETS = ["/", "/page.css", "/page.js"]


@pytest.mark.parametrize("path", ASSETS)
def test_the_page_needs_no_key_and_allows_no_outside_asset(client_for, path):
    client = client_for(token="secret")
    reply = client.get(path)
    assert reply.status_code == 200
    policy = reply.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; ") and "unsafe" not in policy
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert not re.search(r"https?://|@import|\son\w+=|style=", reply.text)
    again = client.get(path, headers={"if-none-match": reply.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_no_text_becomes_html():
    script = files("awares_platform.serve").joinpath("page.js").read_text("utf-8")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", script)


def test_the_examples_are_scenes_of_the_benchmark(client_for):
    client = client_for(token="secret")
    found = client.get("/examples").json()
    assert len(found) == 6 and len({one["question"] for one in found}) == 6
    picture = client.get(f"/{found[0]['image']}")
    assert Image.open(io.BytesIO(picture.content)).format == "PNG"
    for number in ("6", "-1", "x", "9" * 5000):
        missing = client.get(f"/examples/{number}.png")
        assert missing.status_code == 404
    assert missing.json()["error"]["message"] == "there are 6 examples; /examples lists them"


def test_without_the_benchmarks_packages_there_are_no_examples(client_for, monkeypatch):
    page.examples.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "awares.mini.benchmark", None)
    try:
        assert client_for().get("/examples").json() == []
    finally:
        page.examples.cache_clear()


def test_the_low_view_has_the_pixels_that_the_policy_gets(client_for, engine, chat_body, png):
    engine.script = ["7"]
    client = client_for()
    client.post("/v1/chat/completions", json=chat_body())
    view = client.post("/low-view", content=png)
    assert view.headers["content-type"] == "image/png"
    [seen] = engine.requests[0].images
    drawn = Image.open(io.BytesIO(view.content))
    assert drawn.size == seen.size == (56, 56)
    assert drawn.convert("RGB").tobytes() == seen.tobytes()


@pytest.mark.parametrize(
    ("token", "content", "status", "code"),
    [
        ("secret", b"", 401, "unauthorized"),
        (None, b"no image", 400, "invalid_image"),
        (None, b"0" * 2048, 413, "request_too_large"),
    ],
)
def test_a_low_view_is_refused_as_a_question_is(client_for, token, content, status, code):
    client = client_for(token=token, max_request_bytes=1024)
    reply = client.post("/low-view", content=content)
    assert (reply.status_code, reply.json()["error"]["code"]) == (status, code)
