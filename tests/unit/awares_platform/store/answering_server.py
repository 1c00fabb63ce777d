"""Runs an HTTP server on this machine, whose replies a test chooses."""

import http.server
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message

from awares_platform.config.store import StoreConfig
from awares_platform.store import ObjectStore

LISTING = b"""<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>awares</Name>
<IsTruncated>false</IsTruncated><KeyCount>0</KeyCount></ListBucketResult>"""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request to the server.

    Example:
        Asked("PUT", "/awares/x/key", headers, b"content")
    """

    method: str
    path: str
    headers: Message
    body: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply of the server. The server adds the header Content-Length.

    Example:
        Answer(404, b"<html>no</html>", (("content-type", "text/html"),))
    """

    status: int = 200
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


class AnsweringServer(http.server.ThreadingHTTPServer):
    """A server that calls `answer` for each request, and keeps the requests in `asked`."""

    answer: Callable[[Asked], Answer]

    def __init__(self, answer: Callable[[Asked], Answer]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer, self.asked = answer, []

    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing about clients that abort a connection."""


class _Handler(http.server.BaseHTTPRequestHandler):
    server: AnsweringServer

    def _reply(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        asked = Asked(self.command, self.path, self.headers, body)
        self.server.asked.append(asked)
        answer = self.server.answer(asked)
        self.send_response(answer.status)
        for name, value in (*answer.headers, ("content-length", str(len(answer.body)))):
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _reply

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def answering(
    answer: Callable[[Asked], Answer], tls: ssl.SSLContext | None = None
) -> Iterator[AnsweringServer]:
    """Run a server that answers each request with the result of `answer`."""
    server = AnsweringServer(answer)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def client_of(server: AnsweringServer, **settings: object) -> ObjectStore:
    """Return a client of the server, with the prefix "x" of the bucket "awares"."""
    endpoint = f"http://127.0.0.1:{server.server_port}"
    values = {"url": "s3://awares/x", "endpoint": endpoint, "retry_budget_s": 0.2, **settings}
    return ObjectStore(StoreConfig(**values))


def error(code: str, message: str = "injected", more: str = "") -> bytes:
    """Return the body of an error of S3."""
    return f"<Error><Code>{code}</Code><Message>{message}</Message>{more}</Error>".encode()
