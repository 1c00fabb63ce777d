"""Reads and sends the heads and the bodies of HTTP/1.1 messages."""

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

PIECE = 64 * 1024


class Closed(Exception):
    """Raised if the peer has closed the connection, or if the connection must be closed now."""


class Reader(Protocol):
    """A binary file that reads from a socket."""

    def readline(self) -> bytes: ...
    def read(self, size: int, /) -> bytes: ...


@dataclass(slots=True)
class Head:
    """The start line and the header lines of a message, exactly as they were received."""

    start: bytes
    lines: list[bytes]

    @classmethod
    def read(cls, source: Reader) -> "Head":
        """Read the next head. Raises Closed if the peer has closed the connection."""
        start, lines = source.readline(), []
        while (line := source.readline()) not in (b"\r\n", b""):
            lines.append(line)
        if not line:
            raise Closed
        return cls(start, lines)

    @property
    def words(self) -> list[str]:
        return self.start.decode("latin-1").split()

    def header(self, name: bytes) -> bytes:
        """Return a header's value in lower case, or b"" if the head has no such header.

        `name` must be in lower case.
        """
        values = [
            line.partition(b":")[2].strip().lower()
            for line in self.lines
            if line.lower().startswith(name + b":")
        ]
        return values[0] if values else b""

    def without(self, *names: bytes) -> "Head":
        return Head(
            self.start,
            [line for line in self.lines if line.partition(b":")[0].strip().lower() not in names],
        )

    def send(self, connection: socket.socket) -> None:
        connection.sendall(b"".join([self.start, *self.lines, b"\r\n"]))


def pieces(head: Head, source: Reader, to_end: bool = False) -> Iterator[bytes]:
    """Yield the pieces of the body that follows `head`, without the framing of a chunked body.

    With `to_end`, a body without a stated length ends when the peer closes the connection.
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


def _exactly(size: int, source: Reader) -> Iterator[bytes]:
    while size:
        if not (piece := source.read(min(size, PIECE))):
            raise Closed
        size -= len(piece)
        yield piece


def framed(piece: bytes, chunked: bool) -> bytes:
    """Return `piece` as a chunk if `chunked` is true, and unchanged otherwise."""
    return b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece


def drain(pieces: Iterator[bytes]) -> None:
    for _ in pieces:
        pass
