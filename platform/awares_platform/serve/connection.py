"""Limits the time and the size of request headers, and the number of connections.

uvicorn itself limits neither the time nor the size of headers. A client could keep its connection
open forever with one byte per second.
"""

import json
from asyncio import TimerHandle, Transport

from uvicorn import config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from awares_platform.serve.errors import RequestError

HEADER_S = 10.0
"""Seconds within which the whole header of a request must arrive."""
MOST_HEADER = 64 * 1024
"""A request is refused if more bytes arrive before its header is complete."""
MOST_CONNECTIONS = 4096
"""The largest number of connections of one proxy. Further connections get 503."""


def use() -> None:
    """Let every uvicorn server of this process use `Connection` from now on."""
    config.HTTP_PROTOCOLS["auto"] = f"{__name__}:{Connection.__name__}"


class Connection(HttpToolsProtocol):
    """An HTTP connection that limits the headers of requests. It answers invalid HTTP in JSON.

    An invalid request is answered only after the earlier requests on the same connection.
    """

    _timer: TimerHandle | None = None
    _received = 0
    _body = 0
    _refusal: bytes | None = None
    """The error response to an invalid request. It waits until earlier requests are answered."""

    def connection_made(self, transport: Transport) -> None:
        """Start the timer for the header. If there are too many connections, refuse this one."""
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            self._refuse(503, "the endpoint has too many connections; try again later")
        else:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer for the header."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse bytes from the client. Refuse a request with an invalid or too long header."""
        if self.transport.is_closing() or self._refusal is not None:
            return
        line, end, _ = data.partition(b"\n")
        if self._timer is not None and not self._received and end and b" HTTP/" not in line:
            self._refuse(400, "the first line of a request must end with HTTP/1.1")
            return
        self._body = 0
        super().data_received(data)
        if self._timer is None:
            self._expect_request()
        else:
            self._received += len(data) - self._body
            if self._received > MOST_HEADER:
                self._refuse(431, f"the header of a request has over {MOST_HEADER} bytes")

    def on_message_begin(self) -> None:
        """Start the timer for the header of the next request on this connection."""
        super().on_message_begin()
        if self._timer is None:
            self._wait()

    def on_body(self, body: bytes) -> None:
        """Count the bytes of a body, so that they do not count as bytes of a header."""
        self._body += len(body)
        super().on_body(body)

    def on_headers_complete(self) -> None:
        """Stop the timer for the header, and start to answer the request."""
        self._stop_waiting()
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """Continue with the next request. If only an invalid request is left, refuse it."""
        if self._refusal is not None and not self._next_is_whole():
            self._close_with(self._refusal)
        if self._timer is not None:
            self._restart_timer()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse bytes that uvicorn cannot parse as HTTP."""
        self._refuse(400, msg)

    def _expect_request(self) -> None:
        """Start the timer if the client sends bytes that begin no request, such as a blank line.

        This timer is necessary, because any byte stops uvicorn's own timer for idle connections.
        """
        idle = self._refusal is None and not self._is_answering()
        if idle and not self.transport.is_closing():
            self._wait()

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
            # While uvicorn answers a request, it may pause reading. The client is then not late.
            self._restart_timer()
        elif self._received:
            self._refuse(408, f"the header of the request took over {HEADER_S:g} s")
        else:
            self.transport.close()

    def _refuse(self, status: int, message: str) -> None:
        """Send an error in JSON after all earlier answers, then close the connection."""
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
        """Return whether the response to some request is still incomplete."""
        return self.cycle is not None and not self.cycle.response_complete

    def _answers_broken(self) -> bool:
        """Return whether the only unanswered request on this connection is the invalid one.

        The body of an invalid request is incomplete, and its response has not started.
        """
        return self.cycle.more_body and not self.pipeline and not self.cycle.response_started

    def _next_is_whole(self) -> bool:
        """Return whether the next request in the pipeline has arrived with its whole body."""
        return bool(self.pipeline) and not self.pipeline[-1][0].more_body
