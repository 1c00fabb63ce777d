"""Tests `awares ask` against a real HTTP server with scripted replies."""

import http.server
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from awares.errors import DataError
from awares_platform.cli.ask import ask, run
from awares_platform.method.chat_client import EndpointError
from tests import hostile

ROOT = Path(__file__).parents[4]
MODELS = {"data": [{"id": "mini"}]}
USAGE = {"prompt_tokens": 31, "completion_tokens": 18}
FIGURES = {
    "visual_tokens": 8, "rtr_token": 0.5, "turns": 2, "stop": "answer", "latency_s": 0.1234,
    "weight_version": 12,
}  # fmt: skip
VIEWS = [{"region": "0", "box": [0, 0, 56, 56]}]


def chunk(text: str = "", **fields: object) -> dict:
    return {"choices": [{"index": 0, "delta": {"content": text} if text else {}}], **fields}


def reply_of(answer: str, views: list[dict] = VIEWS, **figures: object) -> list[dict]:
    """Return the chunks of a reply: a request for `views`, and the answer in two pieces."""
    asked = [chunk(awares={"event": "crops", "views": views})] if views else []
    pieces = [chunk(answer[:1]), chunk(answer[1:])]
    end = {"choices": [], "usage": USAGE}
    return [*asked, *pieces, chunk(awares=FIGURES | figures), end]


class Endpoint(http.server.BaseHTTPRequestHandler):
    """A handler that replies with the server's `script`: a status, a body and headers.

    If `script` is None, the handler streams `server.chunks`, and calls `server.pause` before each
    chunk.
    """

    def do_GET(self) -> None:
        self._answer(*(self.server.script or (200, json.dumps(MODELS), {})))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.seen = (self.headers, json.loads(body))
        self._answer(*(self.server.refusal or (200, "", {})))
        for body in self.server.chunks:
            self.server.pause(body)
            self.wfile.write(f"data: {json.dumps(body)}\n\n".encode())

    def _answer(self, status: int, text: str, headers: dict[str, str]) -> None:
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
    server.script, server.refusal, server.pause = None, None, lambda body: None
    server.chunks = reply_of("7")
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
    assert body["stream"] and body["stream_options"] == {"include_usage": True}
    assert reply.lines().splitlines() == [
        "crops    top left [0, 0, 56, 56]",
        "answer   7",
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


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
def test_a_proxy_is_not_asked_for_an_endpoint_on_this_machine(server, image, monkeypatch, host):
    with hostile.proxy() as proxy:
        for name, value in hostile.proxies(proxy.server_port).items():
            monkeypatch.setenv(name, value)
        reply = ask(image, "which digit?", f"http://{host}:{server.server_port}")
    assert reply.answer == "7" and proxy.asked == []


def test_a_remote_endpoint_is_asked_through_the_proxy(image, monkeypatch):
    with hostile.proxy() as proxy:
        for name, value in hostile.proxies(proxy.server_port).items():
            monkeypatch.setenv(name, value)
        with pytest.raises(EndpointError, match=r"refused \(403\)"):
            ask(image, "which digit?", "http://policy.example.invalid:8000")
    assert proxy.asked == ["GET http://policy.example.invalid:8000/v1/models"]


ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def _asked_from_a_shell(server, image, question, **environment) -> str:
    command = "from awares_platform.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", command, "ask", str(image), question, "--endpoint", _url(server)],
        env={**os.environ, **ASCII, **environment}, capture_output=True, cwd=ROOT, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def test_a_question_beyond_ascii_is_asked_in_any_locale(server, image):
    assert "answer   7" in _asked_from_a_shell(server, image, "wie groß ist 数字?")
    assert server.seen[1]["messages"][0]["content"][1]["text"] == "wie groß ist 数字?"


@pytest.mark.parametrize("environment", [{}, {"PYTHONIOENCODING": "ascii"}])
def test_an_answer_beyond_ascii_is_printed_in_any_locale(server, image, environment):
    server.chunks = reply_of("größer")
    assert "answer   gr\\xf6\\xdfer\n" in _asked_from_a_shell(server, image, "?", **environment)


def test_help_is_printed_in_any_locale():
    command = "from awares_platform.cli.main import main; main()"
    environment = {**os.environ, **ASCII, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "-c", command, "plan", "--help"],
        env=environment, capture_output=True, text=True, cwd=ROOT, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0 and "GPU-hours" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("chunks", "lines"),
    [
        (
            reply_of("42"),
            ["crops    top left [0, 0, 56, 56]", "answer   42", "tokens   8 visual (50% of"],
        ),
        (
            reply_of("42", []),
            ["crops    none: the low-resolution view was enough", "answer   42", "tokens   8"],
        ),
        (
            reply_of("42", stop="length"),
            ["crops    top left", "answer   42", "cut      at the token limit", "tokens   8"],
        ),
        (
            reply_of("42", [{"region": "free box", "box": [1, 2, 3, 4]}]),
            ["crops    free box [1, 2, 3, 4]", "answer   42", "tokens   8"],
        ),
    ],
)
def test_the_terminal_shows_what_happened(server, image, capsys, chunks, lines):
    server.chunks = chunks
    run(image, "which digit?", _url(server))
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) > len(lines)
    assert all(line.startswith(start) for line, start in zip(printed, lines, strict=False))


def test_each_part_is_printed_as_soon_as_it_comes(server, image, capsys):
    printed: list[str] = []

    def pause(body: dict) -> None:
        """Wait until all parts before this chunk are printed, and record the printed text."""
        expected = ["", "crops    top left [0, 0, 56, 56]\n", "answer   4", "2"]
        if len(printed) < len(expected):
            deadline, text = time.monotonic() + 20, ""
            while text != expected[len(printed)] and time.monotonic() < deadline:
                text += capsys.readouterr().out
                time.sleep(0.01)
            printed.append(text)

    server.chunks, server.pause = reply_of("42"), pause
    run(image, "which digit?", _url(server))
    assert printed == ["", "crops    top left [0, 0, 56, 56]\n", "answer   4", "2"]
    assert capsys.readouterr().out.startswith("\ntokens   8 visual")


@pytest.mark.parametrize(
    ("chunks", "words"),
    [
        ([chunk("7"), {"error": {"message": "internal error"}}], "failed: internal error"),
        (reply_of("7")[:-1], "lacks 'prompt_tokens'; is it an awares endpoint"),
        ([chunk("7"), {"choices": [], "usage": USAGE}], "lacks 'visual_tokens'"),
    ],
)
def test_a_stream_that_fails_is_an_error(server, image, chunks, words):
    server.chunks = chunks
    with pytest.raises(EndpointError, match=words):
        ask(image, "which digit?", _url(server))


def test_a_refused_question_is_readable(server, image):
    body = json.dumps({"error": {"message": "image: too many pixels"}})
    server.refusal, server.chunks = (400, body, {}), []
    with pytest.raises(EndpointError, match=r"refused \(400\): image: too many pixels"):
        ask(image, "which digit?", _url(server))
