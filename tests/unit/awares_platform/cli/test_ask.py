"""`awares ask` against a real HTTP server with scripted replies."""

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from awares.errors import DataError
from awares_platform.cli.ask import ask
from awares_platform.method.chat_client import EndpointError

MODELS = {"data": [{"id": "mini"}]}
ANSWER = {
    "choices": [{"message": {"content": "7"}}],
    "usage": {"prompt_tokens": 31, "completion_tokens": 18},
    "awares": {
        "crops": ["0"], "boxes": [[0, 0, 56, 56]], "visual_tokens": 8, "rtr_token": 0.5,
        "turns": 2, "stop": "answer", "latency_s": 0.1234, "weight_version": 12,
    },
}  # fmt: skip


class Endpoint(http.server.BaseHTTPRequestHandler):
    """Replies with the server's `script`, and records the requests."""

    def do_GET(self) -> None:
        self._answer(MODELS)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.seen = (self.headers, json.loads(body))
        self._answer(ANSWER)

    def _answer(self, body: dict) -> None:
        status, text, headers = self.server.script or (200, json.dumps(body), {})
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[http.server.HTTPServer]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    server.script = None
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "scene.jpg"
    path.write_bytes(b"pixels")
    return path


def _url(server: http.server.HTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_port}"


def test_the_reply_is_read_and_printed(server, image, monkeypatch):
    monkeypatch.setenv("AWARES_TOKEN", "secret")
    reply = ask(image, "which digit?", f"{_url(server)}/v1/")

    assert (reply.answer, reply.crops, reply.boxes, reply.visual_tokens) == (
        "7",
        ("0",),
        ((0, 0, 56, 56),),
        8,
    )
    headers, body = server.seen
    assert (headers["authorization"], body["model"]) == ("Bearer secret", "mini")
    assert (
        body["messages"][0]["content"][0]["image_url"]["url"] == "data:image/jpeg;base64,cGl4ZWxz"
    )
    assert reply.lines().splitlines() == [
        "answer   7",
        "crops    top left [0, 0, 56, 56]",
        "tokens   8 visual (50% of the full image's), 31 prompt with them, 18 sampled in 2 turns",
        "latency  123 ms",
        "weights  version 12",
    ]


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (
            (400, json.dumps({"error": {"message": "image: too many pixels"}}), {}),
            r"refused \(400\): image: too many pixels",
        ),
        ((401, "", {}), "put it into the environment variable AWARES_TOKEN"),
        ((503, "busy", {"retry-after": "2"}), r"refused \(503\): busy; try again in 2 s"),
        ((200, "<html>", {}), "gave no usable answer"),
    ],
)
def test_a_refusal_is_readable(server, image, script, words):
    server.script = script
    with pytest.raises(EndpointError, match=words):
        ask(image, "which digit?", _url(server))


def test_no_endpoint_and_no_image_are_named(image, tmp_path):
    with pytest.raises(EndpointError, match="start one with `awares serve`"):
        ask(image, "which digit?", "http://127.0.0.1:9")
    with pytest.raises(DataError, match=r"absent\.png cannot be read: No such file"):
        ask(tmp_path / "absent.png", "which digit?", "http://127.0.0.1:9")
