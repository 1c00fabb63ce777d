"""Tests that replies of a server that is no S3 server cause an error which says so.

No such reply means that an object is missing.
"""

import re
import time
from collections.abc import Callable, Iterator

import pytest

from awares_platform.store import ObjectStore
from awares_platform.store.errors import NotFound, StoreError, StoreUnavailable
from tests.unit.awares_platform.store.answering_server import (
    LISTING,
    Answer,
    answering,
    client_of,
    error,
)

PAGE = (
    b"<!DOCTYPE html>\n<html><head><title>Welcome to nginx!</title></head><body><hr></body></html>"
)
ANSWERS = {
    "page": Answer(200, PAGE),
    "xhtml": Answer(200, b"<html xmlns='http://www.w3.org/1999/xhtml'><body>Hello</body></html>"),
    "json": Answer(200, b'{"ok": true}'),
    "text": Answer(404, b"404 page not found"),
    "absent": Answer(404, b"<html><body>Not found</body></html>"),
    "forbidden": Answer(403, b"<html><body>Forbidden</body></html>"),
    "login": Answer(401, b"login first"),
    "bad": Answer(400, b"Client sent an HTTP request to an HTTPS server."),
    "unsupported": Answer(501, b"<html><body>Unsupported method</body></html>"),
    "redirect": Answer(302, b"", (("location", "/login"),)),
    "moved": Answer(301, PAGE, (("location", "/"),)),
}
OPERATIONS: dict[str, Callable[[ObjectStore], object]] = {
    "check": lambda store: store.check(),
    "get": lambda store: store.get("key"),
    "range": lambda store: store.get_range("key", 0, 9),
    "put": lambda store: store.put("key", b"x", if_none_match=True),
    "list": lambda store: [*store.list()],
    "delete_prefix": lambda store: store.delete_prefix("key"),
}


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret")
    yield


@pytest.mark.parametrize("kind", ANSWERS)
def test_every_operation_names_the_setting(kind: str) -> None:
    with answering(lambda _: ANSWERS[kind]) as server:
        store = client_of(server, retry_budget_s=30.0)
        for name, operation in OPERATIONS.items():
            started = time.monotonic()
            with pytest.raises(StoreError, match="is no S3 server .*set store.endpoint") as found:
                operation(store)
            assert not isinstance(found.value, NotFound | StoreUnavailable), name
            assert f"http://127.0.0.1:{server.server_port}" in str(found.value)
            assert time.monotonic() - started < 10, name


@pytest.mark.parametrize("kind", ["page", "absent", "text", "redirect"])
def test_an_object_is_not_taken_for_a_missing_one(kind: str) -> None:
    """Check HEAD requests. Their replies have no body, so the store also requests a listing."""
    with answering(lambda _: ANSWERS[kind]) as server:
        with pytest.raises(StoreError, match="is no S3 server"):
            client_of(server).exists("key")


def test_the_words_of_the_page_are_shown() -> None:
    with answering(lambda _: ANSWERS["bad"]) as server:
        words = re.escape("status 400 ('Client sent an HTTP request to an HTTPS server.')")
        with pytest.raises(StoreError, match=words):
            client_of(server).check()


@pytest.mark.parametrize("status", [429, 408, 502, 503])
def test_a_page_about_an_overload_is_retried(status: int) -> None:
    """Check the pages that a proxy in front of S3 sends while S3 restarts."""
    answers = [Answer(200, LISTING), Answer(status, b"<html><body>busy</body></html>")]
    with answering(lambda _: answers.pop()) as server:
        client_of(server, retry_budget_s=30.0).check()
        assert len(server.asked) == 2


def test_errors_and_redirects_of_s3_are_no_pages() -> None:
    """AWS sends the region of a bucket with a redirect. The client then signs for this region."""
    with answering(lambda _: Answer(404, error("NoSuchKey"))) as server:
        with pytest.raises(NotFound):
            client_of(server).get("key")
    region = (("x-amz-bucket-region", "eu-west-3"),)
    answers = [Answer(200, LISTING), Answer(301, error("PermanentRedirect"), region)]
    with answering(lambda _: answers.pop()) as server:
        client_of(server).check()
        assert "/eu-west-3/s3/aws4_request" in server.asked[1].headers["authorization"]
