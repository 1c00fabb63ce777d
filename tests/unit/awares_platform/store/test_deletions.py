"""Tests deletions in stores that need an MD5 digest, or cannot delete many objects at once."""

import base64
import hashlib
import re
from collections.abc import Callable
from urllib.parse import unquote, urlsplit

import pytest

from awares_platform.store.errors import AccessDenied
from tests.unit.awares_platform.store.answering_server import (
    Answer,
    Asked,
    answering,
    client_of,
    error,
)

NAMES = ["x/dir/a", "x/dir/b", "x/dir/c"]


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret")


class Objects:
    """A small S3 server that can only list and delete its objects."""

    def __init__(self, delete_many: Callable[[Asked], Answer | None]) -> None:
        self.names, self.delete_many = [*NAMES], delete_many

    def answer(self, asked: Asked) -> Answer:
        if asked.method == "GET":
            entry = "<Contents><Key>{}</Key><Size>1</Size><ETag>1</ETag></Contents>"
            entries = "".join(entry.format(name) for name in self.names)
            return Answer(200, f"<ListBucketResult>{entries}</ListBucketResult>".encode())
        if asked.method == "DELETE":
            self.names.remove(unquote(urlsplit(asked.path).path).removeprefix("/awares/"))
            return Answer(204)
        if refusal := self.delete_many(asked):
            return refusal
        for name in re.findall(r"<Key>(.*?)</Key>", asked.body.decode()):
            self.names.remove(name)
        return Answer(200, b"<DeleteResult></DeleteResult>")


def test_a_deletion_has_the_digest_that_older_servers_require() -> None:
    def refuse(asked: Asked) -> Answer | None:
        digest = base64.b64encode(hashlib.md5(asked.body).digest()).decode()
        if asked.headers["content-md5"] != digest:
            return Answer(400, error("MissingContentMD5"))
        return None

    objects = Objects(refuse)
    with answering(objects.answer) as server:
        assert client_of(server).delete_prefix("dir/") == 3
        assert objects.names == []
        assert [asked.method for asked in server.asked] == ["GET", "POST"]


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, "MissingContentMD5"), (501, "NotImplemented"), (405, "MethodNotAllowed")],
)
def test_a_store_without_the_request_deletes_one_by_one(status: int, code: str) -> None:
    objects = Objects(lambda _: Answer(status, error(code)))
    with answering(objects.answer) as server:
        assert client_of(server).delete_prefix("dir/") == 3
        assert objects.names == []
        assert sorted(asked.method for asked in server.asked) == [*3 * ["DELETE"], "GET", "POST"]


def test_a_denied_deletion_is_not_tried_one_by_one() -> None:
    objects = Objects(lambda _: Answer(403, error("AccessDenied")))
    with answering(objects.answer) as server:
        with pytest.raises(AccessDenied):
            client_of(server).delete_prefix("dir/")
        assert objects.names == NAMES
