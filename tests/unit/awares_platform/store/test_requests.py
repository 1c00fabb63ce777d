"""Tests what a client sends: region, address, encryption and the newest credentials."""

from collections.abc import Callable
from pathlib import Path

import pytest

from awares_platform.config.store import StoreConfig
from awares_platform.store import ObjectStore, multipart
from awares_platform.store.errors import AccessDenied
from tests.unit.awares_platform.store.answering_server import (
    LISTING,
    Answer,
    Asked,
    answering,
    client_of,
    error,
)

KMS = {"encryption": "aws:kms", "kms_key": "arn:aws:kms:eu-west-3:1:key/k"}
SENT = {
    "x-amz-server-side-encryption": "aws:kms",
    "x-amz-server-side-encryption-aws-kms-key-id": KMS["kms_key"],
}
STARTED = (
    b"""<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"""
)
COMPLETED = b"<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>"


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret")


def requiring_kms(asked: Asked) -> Answer:
    """Answer as a bucket whose policy denies objects without the headers of SSE-KMS."""
    starts = asked.method == "PUT" and "partNumber" not in asked.path or "?uploads" in asked.path
    found = {name: asked.headers[name] for name in SENT}
    if starts and found != SENT:
        return Answer(403, error("AccessDenied", "explicit deny"))
    if not starts and any(found.values()):
        return Answer(400, error("InvalidArgument", "header not allowed here"))
    body = STARTED if "?uploads" in asked.path else COMPLETED if asked.method == "POST" else b""
    return Answer(200, body, (("etag", "e"),))


def test_every_new_object_asks_for_encryption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(multipart, "PART_BYTES", 2**20)
    (tmp_path / "large").write_bytes(bytes(3 * 2**20))
    with answering(requiring_kms) as server:
        for settings in ({}, {"encryption": "AES256"}, {"encryption": "aws:kms"}):
            with pytest.raises(AccessDenied):
                client_of(server, **settings).put("key", b"x")
        store = client_of(server, **KMS)
        store.put("key", b"x", if_none_match=True)
        assert store.upload_file(tmp_path / "large", "large") == "e"
    assert "x-amz-server-side-encryption" not in server.asked[0].headers


def test_a_key_needs_kms() -> None:
    with pytest.raises(ValueError, match="store.kms_key = 'k' needs store.encryption"):
        StoreConfig(kms_key="k")


@pytest.mark.parametrize(
    ("addressing", "url"),
    [
        ("auto", "http://s3.example.invalid/awares?"),
        ("path", "http://s3.example.invalid/awares?"),
        ("virtual", "http://awares.s3.example.invalid/?"),
    ],
)
def test_the_bucket_is_in_the_path_or_in_the_host(
    addressing: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test's server is the client's HTTP proxy, so it receives the whole URL."""
    with answering(lambda _: Answer(200, LISTING)) as server:
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.setenv(name, "")
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_port}")
        client_of(server, endpoint="http://s3.example.invalid", addressing=addressing).check()
        assert server.asked[0].path.startswith(url)


def test_the_region_is_signed_and_corrected_by_the_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_REGION", "us-west-1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-west-1")
    wrong = error("AuthorizationHeaderMalformed", "wrong region", "<Region>eu-west-3</Region>")

    def answer(asked: Asked) -> Answer:
        right = "/eu-west-3/s3/" in asked.headers["authorization"]
        return Answer(200, LISTING) if right else Answer(400, wrong)

    with answering(answer) as server:
        client_of(server, region="eu-west-3").check()
        assert len(server.asked) == 1
        client_of(server, region="eu-west-1").check()
        assert "/eu-west-1/s3/" in server.asked[1].headers["authorization"]


def test_no_variable_moves_the_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    store = ObjectStore(StoreConfig(endpoint=None, region="eu-west-3"))
    assert store.client.meta.endpoint_url == "https://s3.eu-west-3.amazonaws.com"


def rotated(accepted: str, rotate: Callable[[], object]) -> Callable[[Asked], Answer]:
    """Return a handler that refuses all tokens except `accepted`. Each refusal calls `rotate`."""

    def answer(asked: Asked) -> Answer:
        if asked.headers["x-amz-security-token"] == accepted:
            return Answer(200, LISTING)
        rotate()
        return Answer(400, error("ExpiredToken"))

    return answer


def test_credentials_that_have_expired_are_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    path = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(path))

    def write(token: str) -> None:
        values = "aws_access_key_id = k\naws_secret_access_key = s\naws_session_token = "
        path.write_text(f"[default]\n{values}{token}\n")

    write("old")
    with answering(rotated("new", lambda: write("new"))) as server:
        client_of(server).check()
        assert [asked.headers["x-amz-security-token"] for asked in server.asked] == ["old", "new"]
    with answering(rotated("newer", lambda: None)) as server:
        with pytest.raises(AccessDenied, match="have expired .ExpiredToken.; renew them"):
            client_of(server, retry_budget_s=30.0).check()
        assert len(server.asked) == 2
