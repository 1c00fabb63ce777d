"""Tests which URLs of remote images are refused, and how a failing server is reported."""

import asyncio
import http.server
import threading
import time
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from awares_platform.runtime.remote_files import is_public
from awares_platform.serve.errors import RequestError
from awares_platform.serve.remote import RemoteImages


class Origin(http.server.BaseHTTPRequestHandler):
    """An HTTP handler that redirects, waits, fails or sends many bytes, depending on the path."""

    def do_GET(self) -> None:
        if self.path == "/redirect":
            self.send_response(302)
            self.send_header("location", "/image")
            self.end_headers()
            return
        if self.path == "/slow":
            time.sleep(1)
        self.send_response(404 if self.path == "/missing" else 200)
        self.end_headers()
        self.wfile.write(
            b"x" * 4096 if self.path == "/large" else f"image for {self.headers['host']}".encode()
        )

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Origin)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()


async def _loopback(host: str, port: int) -> list:
    return [ip_address("127.0.0.1")]


def _remote(**changes) -> RemoteImages:
    return RemoteImages(
        **{
            "hosts": ("images.test",),
            "max_bytes": 1024,
            "timeout_s": 30.0,
            "resolve": _loopback,
            "permitted": lambda address: True,
        }
        | changes
    )


def _fetch(remote: RemoteImages, url: str) -> bytes:
    return asyncio.run(remote.fetch(url))


def test_an_allowed_image_is_fetched_under_its_own_host_name(port):
    assert (
        _fetch(_remote(), f"http://images.test:{port}/image")
        == f"image for images.test:{port}".encode()
    )


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/redirect", "answered 302; expected 200 and no redirect"),
        ("/missing", "answered 404"),
        ("/large", "over 1024 bytes"),
        ("/slow", "took over 0.5 s"),
    ],
)
def test_a_server_that_misbehaves_is_named(port, path, words):
    with pytest.raises(RequestError, match=words):
        limit = 0.5 if path == "/slow" else 30.0
        _fetch(_remote(timeout_s=limit), f"http://images.test:{port}{path}")


def test_an_unreachable_server_is_named():
    with pytest.raises(RequestError, match="failed: ConnectError"):
        _fetch(_remote(), "http://images.test:9/image")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://evil.test/a", "not fetched from evil.test; allowed: images.test"),
        ("http://images.test.evil.test/a", "not fetched from"),
        ("http://user:pass@images.test/a", "credentials"),
        ("http://images.test@evil.test/a", "credentials"),
        ("ftp://images.test/a", "expected a data:, https: or http: URL"),
        ("http://images.test:99999/a", "expected a data:"),
        ("http://[images.test/a", "expected a data:"),
        ("//images.test/a", "expected a data:"),
        ("images.test/a.png", "expected a data:"),
    ],
)
def test_a_url_is_refused_before_any_connection(url, words):
    with pytest.raises(RequestError, match=words):
        _fetch(_remote(resolve=None), url)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.0.0.1",
        "172.16.3.4",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "::1",
        "fe80::1",
        "fc00::1",
        "::ffff:10.0.0.1",
    ],
)
def test_an_allowed_name_that_points_inside_is_refused(address):
    async def inside(host: str, port: int) -> list:
        return [ip_address("93.184.215.14"), ip_address(address)]

    assert not is_public(ip_address(address))
    with pytest.raises(RequestError, match="public addresses only"):
        _fetch(_remote(resolve=inside, permitted=is_public), "https://images.test/a")


def test_public_addresses_pass():
    assert is_public(ip_address("93.184.215.14")) and is_public(
        ip_address("2606:2800:21f:cb07:6820:80da:af6b:8b2c")
    )
