"""Bounds what a connection costs the proxy before its request is complete.

uvicorn limits neither the time nor the size of a request's header. A client that sends a byte a
second would hold its connection for ever. `use` makes each server of this process take the class
`Connection` for its connections.
"""

import json
from asyncio import TimerHandle, Transport

from uvicorn import config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from awares_platform.serve.errors import RequestError

HEADER_S = 10.0
"""Seconds in which the header of a request must arrive."""
MOST_HEADER = 64 * 1024
"""The largest number of bytes of a header that arrives in pieces."""
MOST_CONNECTIONS = 4096
"""The largest number of connections of one proxy. Further connections get 503."""


def use() -> None:
    """Let every uvicorn server of this process use `Connection` from now on."""
    config.HTTP_PROTOCOLS["auto"] = f"{__name__}:{Connection.__name__}"


class Connection(HttpToolsProtocol):
    """A connection whose header has limits. It answers broken HTTP in JSON.

    A client may send further requests before it has the answer of the first one. If one of them is
    broken, the requests before it are answered first.
    """

    _timer: TimerHandle | None = None
    _received = 0
    _refusal: bytes | None = None
    """The response to a broken request, for which the answers before it still run."""

    def connection_made(self, transport: Transport) -> None:
        """Begin to wait for a header. Refuse the connection if there are too many."""
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            self._refuse(503, "the endpoint has too many connections; try again later")
        else:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read bytes of a request."""
        if self.transport.is_closing() or self._refusal is not None:
            return
        line, end, _ = data.partition(b"\n")
        if self._timer is not None and not self._received and end and b" HTTP/" not in line:
            self._refuse(400, "the first line of a request must end with HTTP/1.1")
            return
        super().data_received(data)
        if self._timer is not None:
            self._received += len(data)
            if self._received > MOST_HEADER:
                self._refuse(431, f"the header of a request has over {MOST_HEADER} bytes")

    def on_message_begin(self) -> None:
        """Begin to wait for the header of a further request."""
        super().on_message_begin()
        if self._timer is None:
            self._wait()

    def on_headers_complete(self) -> None:
        """Stop waiting, and start to answer the request."""
        self._stop_waiting()
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """Go on with the next request, or refuse it if it is broken."""
        if self._refusal is not None and not self._next_is_whole():
            self._close_with(self._refusal)
        if self._timer is not None:
            self._restart_timer()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer a request that is no HTTP."""
        self._refuse(400, msg)

    def _wait(self) -> None:
        self._received = 0
        self._restart_timer()

    def _restart_timer(self) -> None:
        self._stop_waiting()
        self._timer = self.loop.call_later(HEADER_S, self._late)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        if self._is_answering():
            # uvicorn may read no header meanwhile, so a late header is no fault of the client.
            self._restart_timer()
        elif self._received:
            self._refuse(408, f"the header of the request took over {HEADER_S:g} s")
        else:
            self.transport.close()

    def _refuse(self, status: int, message: str) -> None:
        """Send an error in JSON and close the connection, after the answers that still run."""
        self._stop_waiting()
        if self.transport.is_closing():
            return
        error = RequestError(message, status=status, code="invalid_http")
        body = json.dumps(error.body()).encode()
        head = b"content-type: application/json\r\nconnection: close\r\ncontent-length: "
        retry = b"retry-after: 1\r\n" if status == 503 else b""
        line = STATUS_LINE[status] + retry + head + str(len(body)).encode()
        response = line + b"\r\n\r\n" + body
        if self._is_answering() and not self._answers_broken():
            self._refusal = response
        else:
            self._close_with(response)

    def _close_with(self, response: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(response)
            self.transport.close()

    def _is_answering(self) -> bool:
        """Return whether the answer of a request is not complete."""
        return self.cycle is not None and not self.cycle.response_complete

    def _answers_broken(self) -> bool:
        """Return whether the only open request lacks a part of its body, and has no answer yet."""
        return self.cycle.more_body and not self.pipeline and not self.cycle.response_started

    def _next_is_whole(self) -> bool:
        """Return whether another request waits for its answer, and has its whole body."""
        return bool(self.pipeline) and not self.pipeline[-1][0].more_body
