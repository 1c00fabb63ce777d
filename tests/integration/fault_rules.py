"""Defines the rules that assign faults to requests, and records all requests to the proxy."""

import fnmatch
import threading
from dataclasses import dataclass, field, replace
from urllib.parse import unquote, urlsplit

from awares_platform.store import ObjectStore
from tests.integration.fault import Fault


@dataclass(frozen=True, slots=True)
class Rule:
    """A fault, and the conditions under which a request receives the fault.

    Example:
        Rule("runs/*/HEAD", "PUT", "*", Status(503), times=2)
    """

    match: str
    """An fnmatch pattern for the object key.

    A request about the bucket, such as a listing, has an empty key. `?*` excludes such requests.
    """
    method: str | None
    """The HTTP method, or None for every method."""
    query: str
    """An fnmatch pattern for the query string."""
    fault: Fault
    times: int | None
    """How many requests receive the fault, or None for all matching requests."""
    cleared: threading.Event = field(default_factory=threading.Event)
    """Set when the rule is deleted."""

    def fits(self, method: str, key: str, query: str) -> bool:
        """Return whether the request meets the conditions. The limit `times` is not checked."""
        return (
            self.method in (None, method)
            and fnmatch.fnmatchcase(key, self.match)
            and fnmatch.fnmatchcase(query, self.query)
        )


@dataclass(slots=True)
class Request:
    """A request that reached the proxy.

    Example:
        Request("GET", "runs/mini/HEAD", 206, bytes_in=0, bytes_out=17)
    """

    method: str
    key: str
    status: int = 0
    """The HTTP status of the reply, or 0 if the client got no reply."""
    bytes_in: int = 0
    """The number of body bytes from the client."""
    bytes_out: int = 0
    """The number of body bytes to the client."""


class Faults:
    """The rules and recorded requests of a running proxy, and a client that uses the proxy."""

    store: ObjectStore
    """A client that reaches the test's store through the proxy."""

    def __init__(self, server: str, bucket: str) -> None:
        self.server = server
        self.closing = threading.Event()
        self._bucket = bucket
        self._lock = threading.Lock()
        # Each integer counts the requests that have received the rule's fault.
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
        """Inject `fault` into the next `times` requests that match, or into all if `times` is None.

        `match`, `method` and `query` are as in Rule. If several rules match a request, the oldest
        one with injections left applies.
        """
        with self._lock:
            self._rules.append((Rule(match, method, query, fault, times), 0))

    def clear(self) -> None:
        """Delete all rules, and release the requests that a Stall holds."""
        with self._lock:
            for rule, _ in self._rules:
                rule.cleared.set()
            self._rules.clear()

    @property
    def requests(self) -> list[Request]:
        """Return copies of all requests so far, in order of arrival."""
        with self._lock:
            return [replace(request) for request in self._requests]

    def begin(self, method: str, target: str) -> tuple[Request, Rule | None]:
        """Record a request. Return the record and the rule for it (None if no rule applies)."""
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
