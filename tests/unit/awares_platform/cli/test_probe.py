"""Tests `python -m awares_platform.cli.probe` against local HTTP servers and a fake store."""

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from awares_platform import store
from awares_platform.cli import probe
from awares_platform.store.errors import LaunchError, StoreError
from tests import hostile

CHUNKS = [
    {"choices": [{"index": 0, "delta": {"content": "white"}}]},
    {
        "choices": [],
        "usage": {"prompt_tokens": 31, "completion_tokens": 2},
        "awares": {
            "visual_tokens": 8,
            "rtr_token": 0.5,
            "turns": 1,
            "stop": "answer",
            "latency_s": 0.1,
            "weight_version": 0,
        },
    },
]


class Guarded(http.server.BaseHTTPRequestHandler):
    """A handler that checks the bearer token, unless the server's `token` is None.

    The handler answers the first `starting` requests to the server with status 503.
    """

    def do_GET(self) -> None:
        self._answer(json.dumps({"data": [{"id": "awares"}]}))

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self._answer("".join(f"data: {json.dumps(chunk)}\n\n" for chunk in CHUNKS))

    def _answer(self, body: str) -> None:
        wanted = self.server.token
        self.server.asked += 1
        good = wanted is None or self.headers["authorization"] == f"Bearer {wanted}"
        self.send_response(
            503 if self.server.asked <= self.server.starting else 200 if good else 401
        )
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def serve() -> Iterator[Callable[..., tuple[http.server.HTTPServer, str]]]:
    servers = []

    def start(token: str | None, starting: int = 0) -> tuple[http.server.HTTPServer, str]:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Guarded)
        server.token, server.starting, server.asked = token, starting, 0
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return server, f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


class Bucket:
    """A fake store in memory.

    If `wrong` is given, `get` returns these bytes for any key. If `sticky` is true, `delete` does
    nothing.
    """

    def __init__(self, wrong: bytes | None = None, sticky: bool = False) -> None:
        self.objects: dict[str, bytes] = {}
        self.wrong, self.sticky = wrong, sticky

    def put(self, key: str, data: bytes, *, if_none_match: bool) -> None:
        assert if_none_match and key not in self.objects
        self.objects[key] = data

    def get(self, key: str) -> bytes:
        return self.wrong or self.objects[key]

    def delete(self, key: str) -> None:
        if not self.sticky:
            del self.objects[key]

    def exists(self, key: str) -> bool:
        return key in self.objects


@pytest.fixture
def setup(tmp_path: Path) -> Path:
    path = tmp_path / "setup.toml"
    path.write_text('[store]\nurl = "s3://bucket/prefix"\nendpoint = "http://s3:8333"\n')
    return path


def use(monkeypatch: pytest.MonkeyPatch, bucket: Bucket) -> None:
    monkeypatch.setattr(store.ObjectStore, "from_config", classmethod(lambda cls, config: bucket))


def test_the_store_probe_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, setup: Path
) -> None:
    bucket = Bucket()
    use(monkeypatch, bucket)
    assert probe.check_store(setup, 1) == "s3://bucket/prefix: wrote, read and deleted an object"
    assert bucket.objects == {}


def test_other_bytes_fail_the_store_probe(monkeypatch: pytest.MonkeyPatch, setup: Path) -> None:
    bucket = Bucket(wrong=b"other")
    use(monkeypatch, bucket)
    with pytest.raises(StoreError, match="other bytes came back"):
        probe.check_store(setup, 1)
    assert bucket.objects == {}


def test_an_object_that_stays_fails_the_store_probe(
    monkeypatch: pytest.MonkeyPatch, setup: Path
) -> None:
    use(monkeypatch, Bucket(sticky=True))
    with pytest.raises(StoreError, match="still there after it was deleted"):
        probe.check_store(setup, 1)


def test_ray_answers_with_the_token_only(monkeypatch: pytest.MonkeyPatch, serve: Callable) -> None:
    _, url = serve("secret")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    assert probe.check_ray(url) == f"{url}/api/jobs/: answers with the token, refuses without"


def test_a_wrong_ray_token_is_an_error(monkeypatch: pytest.MonkeyPatch, serve: Callable) -> None:
    _, url = serve("secret")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "wrong")
    with pytest.raises(LaunchError, match="answered 401; expected 200"):
        probe.check_ray(url)


def test_an_open_ray_is_an_error_unless_it_is_meant_to_be(
    monkeypatch: pytest.MonkeyPatch, serve: Callable
) -> None:
    _, url = serve(None)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    with pytest.raises(LaunchError, match="answered 200; expected 401 or 403"):
        probe.check_ray(url)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert "answers anyone" in probe.check_ray(url)


def test_the_endpoint_answers_with_the_token_only(
    monkeypatch: pytest.MonkeyPatch, serve: Callable
) -> None:
    _, url = serve("bearer")
    monkeypatch.setenv(probe.TOKEN, "bearer")
    assert (
        probe.check_endpoint(url)
        == f"{url}: answered 'white' in 1 turns; refuses without the token"
    )


def test_an_endpoint_that_is_open_by_mistake_is_an_error(
    monkeypatch: pytest.MonkeyPatch, serve: Callable
) -> None:
    _, url = serve(None)
    monkeypatch.setenv(probe.TOKEN, "bearer")
    with pytest.raises(LaunchError, match="a refusal without the token in AWARES_SERVE_TOKEN"):
        probe.check_endpoint(url)
    monkeypatch.delenv(probe.TOKEN)
    assert probe.check_endpoint(url) == f"{url}: answered 'white' in 1 turns"


def test_an_endpoint_with_keys_gets_no_question_of_a_probe_without_one(serve: Callable) -> None:
    _, url = serve("bearer")
    assert "refuses requests without a key" in probe.check_endpoint(url)


def test_a_probe_waits_for_a_server_that_is_still_starting(
    monkeypatch: pytest.MonkeyPatch, serve: Callable
) -> None:
    monkeypatch.setattr(probe, "PAUSE_S", 0.01)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    server, url = serve("secret", starting=3)
    assert "refuses without" in probe.patient(lambda: probe.check_ray(url), 20)
    # The server answered 503 to the first three requests. Then the probe sent one request with the
    # token and one request without a token.
    assert server.asked == 5


def test_a_probe_gives_up_with_the_last_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(probe, "PAUSE_S", 0.01)
    assert probe.ray("http://127.0.0.1:9", wait=0.05) == 2
    assert "awares probe ray: no answer at http://127.0.0.1:9/api/jobs/" in capsys.readouterr().err


def test_a_proxy_is_not_asked_for_this_machine(serve, monkeypatch):
    _, url = serve("secret")
    with hostile.proxy() as proxy:
        for name, value in hostile.proxies(proxy.server_port).items():
            monkeypatch.setenv(name, value)
        assert probe.status(url, "secret") == 200
        assert probe.status("http://head.example.invalid:8265", None) == 403
    assert proxy.asked == ["GET http://head.example.invalid:8265"]
