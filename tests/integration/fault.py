"""What can befall a request between a client and an S3 server, as fault_proxy.py does it."""

import fnmatch
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class Status:
    """The proxy answers in the server's place, with S3's XML error. An empty `code` is the usual one of the status."""

    status: int
    code: str = ""


@dataclass(frozen=True, slots=True)
class Reset:
    """The connection is reset, and the request never reaches the server."""


@dataclass(frozen=True, slots=True)
class ResetAfter:
    """The connection is reset when this many bytes of the reply's body have passed; the client may have read fewer."""

    bytes: int


@dataclass(frozen=True, slots=True)
class Truncate:
    """Only the first bytes of the reply's body pass. The reply says its `full` length, the shortened one (`honest`), or none (`absent`)."""

    bytes: int
    length: Literal["full", "honest", "absent"] = "full"


@dataclass(frozen=True, slots=True)
class Flip:
    """The byte at this offset of the reply's body is inverted."""

    offset: int


@dataclass(frozen=True, slots=True)
class Throttle:
    """Bodies pass at this rate, in both directions."""

    bytes_per_s: float


@dataclass(frozen=True, slots=True)
class Delay:
    """The request reaches the server this much later."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Stall:
    """The request waits until `Faults.clear`, then goes on to the server, whether or not the client still waits."""


@dataclass(frozen=True, slots=True)
class LostReply:
    """The server does what it is asked to, and the connection closes before the client hears of it."""


@dataclass(frozen=True, slots=True)
class Call:
    """A function is run in between: `before` the request reaches the server, or `after` its reply and before the client has it.

    Example:
        Call(lambda: os.kill(server.pid, signal.SIGKILL))
    """

    function: Callable[[], object]
    when: Literal["before", "after"] = "before"


Fault = Status | Reset | ResetAfter | Truncate | Flip | Throttle | Delay | Stall | LostReply | Call


@dataclass(frozen=True, slots=True)
class Rule:
    """The requests that a fault befalls: patterns (fnmatch) of the key below the bucket and of the query, and a method.

    Calls on the bucket (listing, delete_objects) have an empty key; `?*` fits objects only.

    Example:
        Rule("runs/*/HEAD", "PUT", "*", Status(503), times=2)
    """

    match: str
    method: str | None
    query: str
    fault: Fault
    times: int | None
    cleared: threading.Event = field(default_factory=threading.Event)

    def fits(self, method: str, key: str, query: str) -> bool:
        """Whether the rule, used up or not, is about such a request."""
        return (
            self.method in (None, method)
            and fnmatch.fnmatchcase(key, self.match)
            and fnmatch.fnmatchcase(query, self.query)
        )
