"""Faults between a client and an S3 server. fault_proxy.py injects them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Status:
    """The proxy replies with an S3 error instead of the server.

    An empty `code` stands for the usual code of the status.
    """

    status: int
    code: str = ""


@dataclass(frozen=True, slots=True)
class Reset:
    """The connection is reset, and the request never reaches the server."""


@dataclass(frozen=True, slots=True)
class ResetAfter:
    """The connection is reset after so many bytes of the reply's body. The client may get fewer."""

    bytes: int


@dataclass(frozen=True, slots=True)
class Truncate:
    """Only the first bytes of the reply's body pass.

    The reply states the `full` length, the shortened one (`honest`), or none (`absent`).
    """

    bytes: int
    length: Literal["full", "honest", "absent"] = "full"


@dataclass(frozen=True, slots=True)
class Flip:
    """The byte at this offset of the reply's body is inverted."""

    offset: int


@dataclass(frozen=True, slots=True)
class Throttle:
    """Bodies pass at this rate in both directions."""

    bytes_per_s: float


@dataclass(frozen=True, slots=True)
class Delay:
    """The request reaches the server after so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Stall:
    """The request waits for `Faults.clear`, then goes to the server even if the client has gone."""


@dataclass(frozen=True, slots=True)
class LostReply:
    """The server executes the request, but the connection closes before its reply arrives."""


@dataclass(frozen=True, slots=True)
class Call:
    """A function runs `before` the request reaches the server, or `after` the server's reply.

    Example:
        Call(lambda: os.kill(server.pid, signal.SIGKILL))
    """

    function: Callable[[], object]
    when: Literal["before", "after"] = "before"


Fault = Status | Reset | ResetAfter | Truncate | Flip | Throttle | Delay | Stall | LostReply | Call
