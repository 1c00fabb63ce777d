"""Applies a fault to the head and the body of an HTTP message."""

import threading
import time
from collections.abc import Iterator

from tests.integration.fault import Fault, Flip, ResetAfter, Throttle, Truncate
from tests.integration.http_message import Closed, Head


def shortened(head: Head, fault: Truncate) -> Head:
    """Return a copy of `head` for a truncated body.

    The Content-Length header is the truncated length if `fault.length` is `honest`. Otherwise
    the header is absent.
    """
    if fault.length == "honest":
        length = min(fault.bytes, int(head.header(b"content-length") or fault.bytes))
        lines = [b"Content-Length: %d\r\n" % length]
    else:
        lines = [b"Connection: close\r\n"]
    kept = head.without(b"content-length", b"transfer-encoding", b"connection").lines
    return Head(head.start, [*kept, *lines])


def first(pieces: Iterator[bytes], fault: Fault | None) -> Iterator[bytes]:
    """Yield only the first `fault.bytes` bytes if the fault is a Truncate or a ResetAfter.

    Otherwise, yield all pieces.
    """
    if not isinstance(fault, Truncate | ResetAfter):
        yield from pieces
        return
    most = fault.bytes
    while most and (piece := next(pieces, b"")):
        yield piece[:most]
        most -= len(piece[:most])


def flipped(pieces: Iterator[bytes], fault: Fault | None) -> Iterator[bytes]:
    """Yield the pieces. If the fault is a Flip, invert all bits of the byte at `fault.offset`."""
    position = 0
    for piece in pieces:
        index = fault.offset - position if isinstance(fault, Flip) else -1
        position += len(piece)
        yield (
            piece[:index] + bytes([piece[index] ^ 0xFF]) + piece[index + 1 :]
            if 0 <= index < len(piece)
            else piece
        )


def throttled(
    pieces: Iterator[bytes], fault: Fault | None, closing: threading.Event
) -> Iterator[bytes]:
    """Yield the pieces. If the fault is a Throttle, yield smaller pieces at the limited rate."""
    if not isinstance(fault, Throttle):
        yield from pieces
        return
    started, sent, step = time.monotonic(), 0, max(1, int(fault.bytes_per_s / 20))
    for piece in pieces:
        for start in range(0, len(piece), step):
            part = piece[start : start + step]
            sent += len(part)
            if closing.wait(max(0.0, started + sent / fault.bytes_per_s - time.monotonic())):
                raise Closed
            yield part
