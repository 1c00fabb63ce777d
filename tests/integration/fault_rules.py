"""The rules that assign faults to requests, and the requests that passed the proxy."""

import fnmatch
import threading
from dataclasses import dataclass, field, replace
from urllib.parse import unquote, urlsplit

from awares_platform.store import ObjectStore
from tests.integration.fault import Fault


@dataclass(frozen=True, slots=True)
class Rule:
    """A fault, and the requests that get it: a method, and fnmatch patterns of key and query.

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
        """Return whether the rule matches the request. A rule that is used up still matches."""
        return (
            self.method in (None, method)
            and fnmatch.fnmatchcase(key, self.match)
            and fnmatch.fnmatchcase(query, self.query)
        )


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
