"""A reverse proxy between boto3 and a real S3 server that injects faults into requests.

    ObjectStore ── boto3 ──> proxy ──> SeaweedFS

Each connection has a thread. Bodies pass in pieces. The first rule that matches a request applies.
Requests pass unchanged with their Host header, because SigV4 signs it and SeaweedFS verifies it.
"""

import socket
import socketserver
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import BinaryIO, Protocol, cast
from urllib.parse import unquote, urlsplit

from awares_platform.store import ObjectStore
from tests.integration.fault import (
    Call,
    Delay,
    Fault,
    Flip,
    LostReply,
    Reset,
    ResetAfter,
    Rule,
    Stall,
    Status,
    Throttle,
    Truncate,
)

PIECE = 64 * 1024
_CODES = {
    404: "NoSuchKey",
    412: "PreconditionFailed",
    500: "InternalError",
    503: "SlowDown",
    507: "XMinioStorageFull",
}


@dataclass(slots=True)
class Request:
    """A request that passed the proxy.

    `bytes_in` counts the body bytes from the client, `bytes_out` those of the reply. `status` is 0
    if the client got no reply.

    Example:
        Request("GET", "runs/mini/HEAD", 206, bytes_in=0, bytes_out=17)
    """

    method: str
    key: str
    status: int = 0
    bytes_in: int = 0
    bytes_out: int = 0


class Faults:
    """The rules of a running proxy, its past requests, and a store that goes through it."""

    store: ObjectStore
    """The store of the test, with the proxy as its endpoint."""

    def __init__(self, server: str, bucket: str) -> None:
        self.server = server
        self.closing = threading.Event()
        self._bucket = bucket
        self._lock = threading.Lock()
        # Each rule has the number of its uses.
        self._rules: list[tuple[Rule, int]] = []
        self._requests: list[Request] = []

    def on(
        self,
        match: str = "*",
        method: str | None = None,
        *,
        fault: Fault,
        times: int | None = None,
        query: str = "*",
    ) -> None:
        """Inject `fault` into the next `times` matching requests (see Rule), or into all.

        If several rules match, the oldest applies.
        """
        with self._lock:
            self._rules.append((Rule(match, method, query, fault, times), 0))

    def clear(self) -> None:
        """Delete all rules, and release the requests that they stall."""
        with self._lock:
            for rule, _ in self._rules:
                rule.cleared.set()
            self._rules.clear()

    @property
    def requests(self) -> list[Request]:
        """Every request so far, in order of arrival."""
        with self._lock:
            return [replace(request) for request in self._requests]

    def begin(self, method: str, target: str) -> tuple[Request, Rule | None]:
        """Record a request, and return the rule that applies to it."""
        parts = urlsplit(target)
        key = unquote(parts.path).lstrip("/").removeprefix(self._bucket).removeprefix("/")
        with self._lock:
            self._requests.append(request := Request(method, key))
            for index, (rule, used) in enumerate(self._rules):
                if (rule.times is None or used < rule.times) and rule.fits(
                    method, key, parts.query
                ):
                    self._rules[index] = (rule, used + 1)
                    return request, rule
        return request, None


@contextmanager
def proxy(store: ObjectStore, retry_budget_s: float = 5.0) -> Iterator[Faults]:
    """Run a proxy in front of the server of `store`; `faults.store` goes through it.

    Without a rule every request passes unchanged.

    Example:
        with proxy(store) as faults:
            faults.on("*/v00000003/*.bin", "GET", fault=Status(500), times=3)
            faults.store.get("v00000003/a.bin")
    """
    faults = Faults(store.config.endpoint or "", store.config.bucket)
    with _Server(faults) as server:
        endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        faults.store = ObjectStore(
            store.config.model_copy(update={"endpoint": endpoint, "retry_budget_s": retry_budget_s})
        )
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield faults
        finally:
            faults.closing.set()
            faults.clear()
            server.shutdown()
            thread.join()
            server.disconnect()


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, faults: Faults) -> None:
        super().__init__(("127.0.0.1", 0), _Connection, bind_and_activate=False)
        # With a large buffer the system would receive a throttled body ahead of the proxy.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * PIECE)
        self.server_bind()
        self.server_activate()
        self.faults = faults
        self.open: set[socket.socket] = set()

    def disconnect(self) -> None:
        """Close the connections and so end their threads; `server_close` does not wait for them."""
        for connection in [*self.open]:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: object, client_address: object) -> None:
        if not self.faults.closing.is_set():
            super().handle_error(cast("socket.socket", request), client_address)


class _Closed(Exception):
    """The peer has closed, or the connection must be closed now."""


class _Reader(Protocol):
    def readline(self) -> bytes: ...
    def read(self, size: int, /) -> bytes: ...


@dataclass(slots=True)
class _Head:
    """A start line and header lines, unchanged."""

    start: bytes
    lines: list[bytes]

    @classmethod
    def read(cls, source: _Reader) -> "_Head":
        """Read the next head. Raises _Closed if the peer has closed the connection."""
        start, lines = source.readline(), []
        while (line := source.readline()) not in (b"\r\n", b""):
            lines.append(line)
        if not line:
            raise _Closed
        return cls(start, lines)

    @property
    def words(self) -> list[str]:
        return self.start.decode("latin-1").split()

    def header(self, name: bytes) -> bytes:
        """Return a header's value in lower case, or b"" if it is absent."""
        values = [
            line.partition(b":")[2].strip().lower()
            for line in self.lines
            if line.lower().startswith(name + b":")
        ]
        return values[0] if values else b""

    def without(self, *names: bytes) -> "_Head":
        return _Head(
            self.start,
            [line for line in self.lines if line.partition(b":")[0].strip().lower() not in names],
        )

    def send(self, connection: socket.socket) -> None:
        connection.sendall(b"".join([self.start, *self.lines, b"\r\n"]))


class _Connection(socketserver.StreamRequestHandler):
    """The connection of one client, and the matching connection to the server."""

    disable_nagle_algorithm = True
    server: _Server
    upstream: socket.socket | None = None
    replies: BinaryIO

    def handle(self) -> None:
        self.server.open.add(self.connection)
        try:
            while True:
                _exchange(self)
        except (_Closed, OSError):
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
        """The connection to the server."""
        if not self.upstream:
            host, _, port = self.server.faults.server.removeprefix("http://").partition(":")
            self.upstream = socket.create_connection((host, int(port)))
            self.upstream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.replies = self.upstream.makefile("rb")
        return self.upstream

    def reset(self) -> None:
        """Close with a TCP reset."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.rfile.close()
        self.wfile.close()
        self.connection.close()
        raise _Closed


def _exchange(client: _Connection) -> None:
    """Handle one request and its reply. Raises _Closed if the connection ends with it."""
    head = _Head.read(cast("_Reader", client.rfile))
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
        raise _Closed
    reply = _forward(client, head, request, fault)
    if isinstance(fault, Call) and fault.when == "after":
        fault.function()
    _reply(client, method, reply, request, fault)
    if b"close" in (head.header(b"connection"), reply.header(b"connection")):
        raise _Closed


def _answer(client: _Connection, head: _Head, request: Request, fault: Status) -> None:
    """Reply instead of the server, and close the connection."""
    if not head.header(b"expect"):
        # If bytes stay unread, closing resets the connection.
        for piece in _pieces(head, cast("_Reader", client.rfile)):
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
    _Head(b"HTTP/1.1 %d Injected\r\n" % fault.status, lines).send(client.connection)
    if request.method != "HEAD":
        request.bytes_out = len(body)
        client.connection.sendall(body)
    client.connection.shutdown(socket.SHUT_WR)
    # A client that does not wait for 100 Continue may still send.
    while client.rfile.read1(PIECE):
        pass
    raise _Closed


def _forward(client: _Connection, head: _Head, request: Request, fault: Fault | None) -> _Head:
    """Pass the request to the server, and return the head of the final reply."""
    server = client.connect()
    head.send(server)
    if head.header(b"expect"):
        reply = _Head.read(client.replies)
        if reply.words[1] != "100":
            # The client may or may not send its body, so the connection cannot be used again.
            lines = [*reply.without(b"connection").lines, b"Connection: close\r\n"]
            return _Head(reply.start, lines)
        reply.send(client.connection)
    chunked = head.header(b"transfer-encoding") == b"chunked"
    for piece in _throttled(
        _pieces(head, cast("_Reader", client.rfile)), fault, client.server.faults.closing
    ):
        request.bytes_in += len(piece)
        server.sendall(_framed(piece, chunked))
    if chunked:
        server.sendall(b"0\r\n\r\n")
    while (reply := _Head.read(client.replies)).words[1].startswith("1"):
        reply.send(client.connection)
    return reply


def _reply(
    client: _Connection, method: str, head: _Head, request: Request, fault: Fault | None
) -> None:
    """Pass the server's reply to the client, and inject the fault.

    The reply is always read to its end, so that the server has executed the request.
    """
    bodiless = method == "HEAD" or head.words[1] in ("204", "304")
    body = iter(()) if bodiless else _pieces(head, client.replies, to_end=True)
    if isinstance(fault, LostReply):
        _drain(body)
        raise _Closed
    chunked = head.header(b"transfer-encoding") == b"chunked"
    most = fault.bytes if isinstance(fault, Truncate | ResetAfter) else None
    if isinstance(fault, Truncate) and fault.length != "full":
        chunked = False
        length = min(fault.bytes, int(head.header(b"content-length") or fault.bytes))
        lines = (
            [b"Content-Length: %d\r\n" % length]
            if fault.length == "honest"
            else [b"Connection: close\r\n"]
        )
        head = _Head(
            head.start,
            [*head.without(b"content-length", b"transfer-encoding", b"connection").lines, *lines],
        )
    request.status = int(head.words[1])
    head.send(client.connection)
    for piece in _throttled(
        _flipped(_first(body, most), fault), fault, client.server.faults.closing
    ):
        request.bytes_out += len(piece)
        client.connection.sendall(_framed(piece, chunked))
    _drain(body)
    if isinstance(fault, ResetAfter):
        client.reset()
    if isinstance(fault, Truncate) and fault.length != "honest":
        raise _Closed
    if chunked:
        client.connection.sendall(b"0\r\n\r\n")
    elif not bodiless and not head.header(b"content-length"):
        raise _Closed


def _pieces(head: _Head, source: _Reader, to_end: bool = False) -> Iterator[bytes]:
    """Yield the body that follows `head`, without its framing.

    With `to_end`, a body without a length ends when the peer closes the connection.
    """
    if head.header(b"transfer-encoding") == b"chunked":
        while size := int(source.readline().partition(b";")[0], 16):
            yield from _exactly(size, source)
            source.readline()
        while source.readline() not in (b"\r\n", b""):
            pass
    elif length := head.header(b"content-length"):
        yield from _exactly(int(length), source)
    elif to_end:
        while piece := source.read(PIECE):
            yield piece


def _exactly(size: int, source: _Reader) -> Iterator[bytes]:
    while size:
        if not (piece := source.read(min(size, PIECE))):
            raise _Closed
        size -= len(piece)
        yield piece


def _first(pieces: Iterator[bytes], most: int | None) -> Iterator[bytes]:
    """Yield the first `most` bytes. No further piece is read."""
    if most is None:
        yield from pieces
        return
    while most and (piece := next(pieces, b"")):
        yield piece[:most]
        most -= len(piece[:most])


def _flipped(pieces: Iterator[bytes], fault: Fault | None) -> Iterator[bytes]:
    position = 0
    for piece in pieces:
        index = fault.offset - position if isinstance(fault, Flip) else -1
        position += len(piece)
        yield (
            piece[:index] + bytes([piece[index] ^ 0xFF]) + piece[index + 1 :]
            if 0 <= index < len(piece)
            else piece
        )


def _throttled(
    pieces: Iterator[bytes], fault: Fault | None, closing: threading.Event
) -> Iterator[bytes]:
    """Yield the same bytes in small pieces, at most at the rate of the fault."""
    if not isinstance(fault, Throttle):
        yield from pieces
        return
    started, sent, step = time.monotonic(), 0, max(1, int(fault.bytes_per_s / 20))
    for piece in pieces:
        for start in range(0, len(piece), step):
            part = piece[start : start + step]
            sent += len(part)
            if closing.wait(max(0.0, started + sent / fault.bytes_per_s - time.monotonic())):
                raise _Closed
            yield part


def _framed(piece: bytes, chunked: bool) -> bytes:
    return b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece


def _drain(pieces: Iterator[bytes]) -> None:
    for _ in pieces:
        pass
