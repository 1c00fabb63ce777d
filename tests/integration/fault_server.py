"""Runs the server of the fault proxy, which forwards requests and injects the rules' faults."""

import socket
import socketserver
import struct
from contextlib import suppress
from typing import BinaryIO, cast

from tests.integration.fault import (
    Call,
    Delay,
    Fault,
    LostReply,
    Reset,
    ResetAfter,
    Stall,
    Status,
    Truncate,
)
from tests.integration.fault_rules import Faults, Request
from tests.integration.faulty_body import first, flipped, shortened, throttled
from tests.integration.http_message import PIECE, Closed, Head, Reader, drain, framed, pieces

_CODES = {
    404: "NoSuchKey",
    412: "PreconditionFailed",
    500: "InternalError",
    503: "SlowDown",
    507: "XMinioStorageFull",
}


class Server(socketserver.ThreadingTCPServer):
    """A server with a thread for each connection."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, faults: Faults) -> None:
        super().__init__(("127.0.0.1", 0), Connection, bind_and_activate=False)
        # With a large buffer, the kernel would accept a body faster than Throttle allows.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * PIECE)
        self.server_bind()
        self.server_activate()
        self.faults = faults
        self.open: set[socket.socket] = set()

    def disconnect(self) -> None:
        """Shut down all connections, so that the thread of each connection ends.

        `server_close` neither stops these threads nor waits for them.
        """
        for connection in [*self.open]:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: object, client_address: object) -> None:
        if not self.faults.closing.is_set():
            super().handle_error(cast("socket.socket", request), client_address)


class Connection(socketserver.StreamRequestHandler):
    """A client's connection to the proxy, and the proxy's connection to the S3 server."""

    disable_nagle_algorithm = True
    server: Server
    upstream: socket.socket | None = None
    replies: BinaryIO

    def handle(self) -> None:
        self.server.open.add(self.connection)
        try:
            while True:
                _exchange(self)
        except (Closed, OSError):
            pass
        finally:
            self.server.open.discard(self.connection)
            if self.upstream:
                self.replies.close()
                self.upstream.close()

    def finish(self) -> None:
        with suppress(OSError):
            super().finish()

    def connect(self) -> socket.socket:
        """Return the connection to the S3 server. The first call opens the connection."""
        if not self.upstream:
            host, _, port = self.server.faults.server.removeprefix("http://").partition(":")
            self.upstream = socket.create_connection((host, int(port)))
            self.upstream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.replies = self.upstream.makefile("rb")
        return self.upstream

    def reset(self) -> None:
        """Close the client's connection with a TCP reset, and raise Closed."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.rfile.close()
        self.wfile.close()
        self.connection.close()
        raise Closed


def _exchange(client: Connection) -> None:
    """Handle one request and its reply.

    Raises Closed if the connection can carry no further request.
    """
    head = Head.read(cast("Reader", client.rfile))
    method, target, _ = head.words
    faults = client.server.faults
    request, rule = faults.begin(method, target)
    fault = rule.fault if rule else None
    match fault:
        case Status():
            _answer(client, head, request, fault)
        case Reset():
            client.reset()
        case Delay(seconds):
            faults.closing.wait(seconds)
        case Stall():
            assert rule
            rule.cleared.wait()
        case Call(function, "before"):
            function()
    if faults.closing.is_set():
        raise Closed
    reply = _forward(client, head, request, fault)
    if isinstance(fault, Call) and fault.when == "after":
        fault.function()
    _reply(client, method, reply, request, fault)
    if b"close" in (head.header(b"connection"), reply.header(b"connection")):
        raise Closed


def _answer(client: Connection, head: Head, request: Request, fault: Status) -> None:
    """Send the S3 error of `fault` as the reply, and raise Closed."""
    if not head.header(b"expect"):
        # Read the whole body, because a close with unread bytes would reset the connection.
        for piece in pieces(head, cast("Reader", client.rfile)):
            request.bytes_in += len(piece)
    code = fault.code or _CODES.get(fault.status, "InternalError")
    error = f"<Error><Code>{code}</Code><Message>injected</Message></Error>"
    body = f"<?xml version='1.0'?>{error}".encode()
    lines = [
        b"Content-Type: application/xml\r\n",
        b"Content-Length: %d\r\n" % len(body),
        b"Connection: close\r\n",
    ]
    request.status = fault.status
    Head(b"HTTP/1.1 %d Injected\r\n" % fault.status, lines).send(client.connection)
    if request.method != "HEAD":
        request.bytes_out = len(body)
        client.connection.sendall(body)
    client.connection.shutdown(socket.SHUT_WR)
    # Read the rest of the request. A client that does not wait for 100 Continue may still send it.
    while client.rfile.read1(PIECE):
        pass
    raise Closed


def _forward(client: Connection, head: Head, request: Request, fault: Fault | None) -> Head:
    """Pass the request to the server, and return the head of the server's final reply."""
    server = client.connect()
    head.send(server)
    if head.header(b"expect"):
        reply = Head.read(client.replies)
        if reply.words[1] != "100":
            # The server did not ask for the body. The client may send it nevertheless, so the
            # connection cannot be used again.
            lines = [*reply.without(b"connection").lines, b"Connection: close\r\n"]
            return Head(reply.start, lines)
        reply.send(client.connection)
    chunked = head.header(b"transfer-encoding") == b"chunked"
    for piece in throttled(
        pieces(head, cast("Reader", client.rfile)), fault, client.server.faults.closing
    ):
        request.bytes_in += len(piece)
        server.sendall(framed(piece, chunked))
    if chunked:
        server.sendall(b"0\r\n\r\n")
    while (reply := Head.read(client.replies)).words[1].startswith("1"):
        reply.send(client.connection)
    return reply


def _reply(
    client: Connection, method: str, head: Head, request: Request, fault: Fault | None
) -> None:
    """Pass the server's reply to the client, and inject the fault.

    The proxy always reads the server's whole reply, so that the server has executed the request.
    """
    bodiless = method == "HEAD" or head.words[1] in ("204", "304")
    body = iter(()) if bodiless else pieces(head, client.replies, to_end=True)
    if isinstance(fault, LostReply):
        drain(body)
        raise Closed
    chunked = head.header(b"transfer-encoding") == b"chunked"
    if isinstance(fault, Truncate) and fault.length != "full":
        chunked, head = False, shortened(head, fault)
    request.status = int(head.words[1])
    head.send(client.connection)
    for piece in throttled(flipped(first(body, fault), fault), fault, client.server.faults.closing):
        request.bytes_out += len(piece)
        client.connection.sendall(framed(piece, chunked))
    drain(body)
    if isinstance(fault, ResetAfter):
        client.reset()
    if isinstance(fault, Truncate) and fault.length != "honest":
        raise Closed
    if chunked:
        client.connection.sendall(b"0\r\n\r\n")
    elif not bodiless and not head.header(b"content-length"):
        raise Closed
