"""Defines the faults that fault_proxy.py injects between a client and an S3 server."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Status:
    """The proxy sends an S3 error as the reply. The request does not reach the server.

    If `code` is empty, the proxy sends the usual S3 error code of `status`.
    """

    status: int
    code: str = ""


@dataclass(frozen=True, slots=True)
class Reset:
    """The proxy resets the connection. The request does not reach the server."""


@dataclass(frozen=True, slots=True)
class ResetAfter:
    """The proxy sends `bytes` bytes of the reply's body, and then resets the connection.

    The reset may discard some of these bytes, so the client may receive fewer bytes.
    """

    bytes: int


@dataclass(frozen=True, slots=True)
class Truncate:
    """The proxy passes only the first `bytes` bytes of the reply's body."""

    bytes: int
    length: Literal["full", "honest", "absent"] = "full"
    """What the Content-Length header states.

    `full` is the original length, `honest` is the shortened length, and `absent` omits the header.
    """


@dataclass(frozen=True, slots=True)
class Flip:
    """The proxy inverts all bits of the byte at `offset` of the reply's body."""

    offset: int


@dataclass(frozen=True, slots=True)
class Throttle:
    """The proxy passes at most `bytes_per_s` bytes of a request body or reply body per second."""

    bytes_per_s: float


@dataclass(frozen=True, slots=True)
class Delay:
    """The proxy waits for `seconds` before it passes the request to the server."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Stall:
    """The proxy holds the request until `Faults.clear` is called.

    The proxy then passes the request to the server, even if the client has disconnected.
    """


@dataclass(frozen=True, slots=True)
class LostReply:
    """The server executes the request, but the connection closes before the client gets a reply."""


@dataclass(frozen=True, slots=True)
class Call:
    """The proxy calls `function` while it handles the request.

    Example:
        Call(lambda: os.kill(server.pid, signal.SIGKILL))
    """

    function: Callable[[], object]
    when: Literal["before", "after"] = "before"
    """`before` forwarding the request, or `after` receiving the head of the reply."""


Fault = Status | Reset | ResetAfter | Truncate | Flip | Throttle | Delay | Stall | LostReply | Call
