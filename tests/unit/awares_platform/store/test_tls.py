"""Tests connections to an S3 server whose certificate comes from a private CA."""

import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from awares_platform.store.errors import StoreError, StoreUnavailable
from tests.unit.awares_platform.store.answering_server import (
    LISTING,
    Answer,
    AnsweringServer,
    answering,
    client_of,
)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with the certificate cert.pem for localhost and its key key.pem."""
    directory = tmp_path_factory.mktemp("authority")
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", "key.pem", "-out", "cert.pem"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    subprocess.run([*command, *files, *subject], cwd=directory, check=True, capture_output=True)
    return directory


@pytest.fixture
def server(authority: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AnsweringServer]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret")
    for name in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(authority / "cert.pem", authority / "key.pem")
    with answering(lambda _: Answer(200, LISTING), tls) as server:
        yield server


def refusal(server: AnsweringServer, scheme: str = "https") -> str:
    """Return the error message of the client's first call, which must fail without retries."""
    endpoint = f"{scheme}://localhost:{server.server_port}"
    started = time.monotonic()
    with pytest.raises(StoreError) as error:
        client_of(server, endpoint=endpoint, retry_budget_s=30.0).check()
    assert time.monotonic() - started < 10 and not isinstance(error.value, StoreUnavailable)
    return str(error.value)


def test_the_bundle_of_a_private_ca_is_used(
    server: AnsweringServer, authority: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(authority / "cert.pem"))
    client_of(server, endpoint=f"https://localhost:{server.server_port}").check()
    assert len(server.asked) == 1


def test_an_unknown_ca_is_named_at_once(server: AnsweringServer) -> None:
    message = refusal(server)
    assert "its certificate is not trusted" in message and "set AWS_CA_BUNDLE" in message
    assert server.asked == []


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_bundle_that_cannot_be_read_is_named_at_once(
    server: AnsweringServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None
) -> None:
    if content:
        (tmp_path / "ca.pem").write_text(content)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    message = refusal(server)
    assert "the certificates of your CA cannot be read" in message
    assert "check the file that AWS_CA_BUNDLE" in message


def test_https_to_a_plain_server_is_named_at_once(server: AnsweringServer) -> None:
    with answering(lambda _: Answer(200, LISTING)) as plain:
        assert "it speaks plain HTTP); write store.endpoint with http://" in refusal(plain)
