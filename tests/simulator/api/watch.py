"""Answers watch requests with a chunked stream of JSON lines.

The stream sends the events after the client's resourceVersion. Without a version, it first sends
all existing objects.
"""

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.simulator.api.kinds import Kind
from tests.simulator.api.objects import Body, Objects

_LONGEST_S = 3600.0
_LOOK_S = 0.5


def stream(
    handler: BaseHTTPRequestHandler,
    objects: Objects,
    kind: Kind,
    namespace: str,
    accept: Callable[[Body], bool],
    query: dict[str, str],
    stopping: threading.Event,
) -> None:
    """Send events until the client's timeout passes, the client disconnects or the server stops."""
    lines = _Lines(handler)
    deadline = time.monotonic() + float(query.get("timeoutSeconds") or _LONGEST_S)
    seen = _begin(lines, objects, kind, namespace, accept, query)
    while time.monotonic() < deadline and not stopping.is_set():
        with objects.changed:
            fresh = [
                event
                for event in objects.events[seen:]
                if (event.kind.group, event.kind.name) == (kind.group, kind.name)
            ]
            seen = len(objects.events)
            if not fresh:
                objects.changed.wait(_LOOK_S)
                continue
        for event in fresh:
            if namespace in ("", event.body["metadata"].get("namespace", "")) and accept(
                event.body
            ):
                lines.send(event.type, {**event.body, "apiVersion": kind.api_version})
    lines.end()


def _begin(
    lines: "_Lines",
    objects: Objects,
    kind: Kind,
    namespace: str,
    accept: Callable[[Body], bool],
    query: dict[str, str],
) -> int:
    """Send the initial events. Return the index of the first event that is still to be sent."""
    with objects.changed:
        since, everything = (
            query.get("resourceVersion", ""),
            query.get("sendInitialEvents") == "true",
        )
        if since not in ("", "0") and not everything:
            return next(
                (index for index, event in enumerate(objects.events) if event.version > int(since)),
                len(objects.events),
            )
        items, version, position = (
            objects.list(kind, namespace, accept),
            objects.version,
            len(objects.events),
        )
    for body in items:
        lines.send("ADDED", body)
    if everything:
        annotations = {"k8s.io/initial-events-end": "true"}
        metadata = {"resourceVersion": str(version), "annotations": annotations}
        lines.send(
            "BOOKMARK", {"apiVersion": kind.api_version, "kind": kind.name, "metadata": metadata}
        )
    return position


class _Lines:
    """Sends the headers of the response, then each line as one chunk of the body."""

    def __init__(self, handler: BaseHTTPRequestHandler) -> None:
        self._file = handler.wfile
        handler.send_response(200)
        handler.send_header("content-type", "application/json")
        handler.send_header("transfer-encoding", "chunked")
        handler.end_headers()
        self._file.flush()

    def send(self, event: str, body: Any) -> None:
        line = json.dumps({"type": event, "object": body}).encode() + b"\n"
        self._file.write(b"%x\r\n%s\r\n" % (len(line), line))
        self._file.flush()

    def end(self) -> None:
        self._file.write(b"0\r\n\r\n")
        self._file.flush()
