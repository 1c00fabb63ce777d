"""Runs an OpenAI-compatible chat server that misbehaves as a test tells it to."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = dict[str, Any]
Reply = Callable[[Body, int], tuple[int, Any]]


def message(content: str | None, finish: str = "stop", **further: object) -> Body:
    """Return the body of a chat completion with this content."""
    choice = {"message": {"role": "assistant", "content": content, **further}}
    usage = {"prompt_tokens": 30, "completion_tokens": 2, "total_tokens": 32}
    return {"choices": [{**choice, "finish_reason": finish}], "usage": usage}


class ChatServer:
    """An HTTP server that answers a request to /v1/chat/completions with `reply(body, count)`.

    `count` is the number of earlier requests. `reply` returns a status and a body. With status 200,
    a text becomes a chat message.
    """

    def __init__(self) -> None:
        self.reply: Reply = lambda body, count: (200, "0")
        # Headers of the replies whose status is not 200.
        self.header: Mapping[str, str] = {}
        self.bodies: list[Body] = []
        self.headers: list[dict[str, str]] = []
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        self._lock = threading.Lock()

    def answer(self, path: str, body: Body, headers: dict[str, str]) -> tuple[int, str]:
        """Record the request, and return the status and the body of the response."""
        with self._lock:
            count = len(self.bodies)
            self.bodies.append(body)
            self.headers.append(headers)
        if path != "/v1/chat/completions":
            return 404, "no such path"
        status, said = self.reply(body, count)
        if status == 200 and (said is None or isinstance(said, str)):
            said = message(said)
        return status, said if isinstance(said, str) else json.dumps(said)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                status, data = server.answer(self.path, body, dict(self.headers))
                self.send_response(status)
                for name, value in (server.header if status != 200 else {}).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data.encode())

            def log_message(self, format: str, *args: object) -> None:
                """Log nothing."""

        return Handler


@contextmanager
def serving() -> Iterator[ChatServer]:
    """Run a chat server until the context ends."""
    server = ChatServer()
    thread = threading.Thread(target=server.http.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.http.shutdown()
        thread.join()
        server.http.server_close()
