"""Serves an endpoint that stands in for the judge model and the grounding model of curation.

A request with an image is for the grounding model. No model runs.
"""

import json
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

BOXES = '{"question": [[100, 150, 400, 350]], "answer": [[120, 170, 300, 300]]}'


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        message = {"role": "assistant", "content": reply(request["messages"])}
        body = json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Suppress the server's log of its requests."""


def reply(messages: list[dict[str, Any]]) -> str:
    """Return BOXES if the last message has an image, and otherwise a judge's reply: "0" or "2".

    The content of a message with an image is a list.
    """
    content = messages[-1]["content"]
    if isinstance(content, list):
        return BOXES
    return "2" if zlib.crc32(content.encode()) % 2 else "0"


@contextmanager
def endpoint() -> Iterator[str]:
    """Run the endpoint on a free port, and yield its base URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
