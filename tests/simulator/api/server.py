"""Simulates the Kubernetes API server for helm and kubectl, with Python's http.server.

    helm -- discovery, CRUD, patches, watch --> ApiServer --> Objects <-- controllers (no HTTP)

Custom resources are checked against the CRD's schema. The fields of built-in kinds are not checked.
"""

import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

from tests.simulator.api import discovery, patches, protobuf
from tests.simulator.api.custom_resource import Invalid, admit
from tests.simulator.api.kinds import Kind
from tests.simulator.api.objects import Body, Conflict, NotFound, Objects
from tests.simulator.api.selectors import accepting
from tests.simulator.api.watch import stream

VERSION = "v1.36.0"
_REASONS = {
    400: "BadRequest",
    404: "NotFound",
    405: "MethodNotAllowed",
    409: "Conflict",
    422: "Invalid",
}


class ApiServer(ThreadingHTTPServer):
    """An API server on a free loopback port.

    For `kubectl logs` and `helm test --logs`, the server gets a pod's log from
    `logs(namespace, name)`.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(
        self, objects: Objects, logs: Callable[[str, str], str] = lambda namespace, pod: ""
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects, self.logs = objects, logs
        self.stopping = threading.Event()

    def kubeconfig(self, directory: Path) -> Path:
        """Write a kubeconfig file whose only cluster is this server. Return the file's path."""
        cluster = {
            "name": "simulator",
            "cluster": {"server": f"http://127.0.0.1:{self.server_port}"},
        }
        context = {
            "name": "simulator",
            "context": {"cluster": "simulator", "user": "simulator", "namespace": "default"},
        }
        body = {"apiVersion": "v1", "kind": "Config", "current-context": "simulator"}
        path = directory / "kubeconfig"
        users = [{"name": "simulator", "user": {}}]
        path.write_text(
            json.dumps({**body, "clusters": [cluster], "contexts": [context], "users": users}),
            "utf-8",
        )
        return path

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print an unexpected error, which is a bug of this server.

        Ignore the errors of connections that the client has closed.
        """
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def running(
    objects: Objects, logs: Callable[[str, str], str] = lambda namespace, pod: ""
) -> Iterator[ApiServer]:
    """Run an API server in a thread until the end of the `with` block."""
    server = ApiServer(objects, logs)
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
    )
    thread.start()
    try:
        yield server
    finally:
        server.stopping.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # Nagle's algorithm would delay every answer by 40 ms.
    server: ApiServer

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing, so that the tests' output stays readable."""

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def do_PUT(self) -> None:
        self._answer(self._put)

    def do_PATCH(self) -> None:
        self._answer(self._patch)

    def do_DELETE(self) -> None:
        self._answer(self._delete)

    def _answer(self, method: Callable[[], tuple[int, Any] | None]) -> None:
        url = urlsplit(self.path)
        self._parts = [part for part in url.path.split("/") if part]
        self._query = {
            key: values[-1] for key, values in parse_qs(url.query, keep_blank_values=True).items()
        }
        self._raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        try:
            answer = method()
        except NotFound as error:
            answer = _status(404, str(error))
        except Conflict as error:
            answer = _status(
                409, str(error), "AlreadyExists" if "already exists" in str(error) else None
            )
        except (_Refused, Invalid) as error:
            answer = _status(error.status, str(error))
        except (KeyError, IndexError, ValueError) as error:
            answer = _status(422, f"{type(error).__name__}: {error}")
        if answer is not None:
            self._send(*answer)

    def _send(self, status: int, body: Any) -> None:
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header(
            "content-type", "text/plain" if isinstance(body, str) else "application/json"
        )
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _get(self) -> tuple[int, Any] | None:
        objects = self.server.objects
        found = discovery.answer(objects.kinds, self._parts, VERSION)
        if found is not None:
            return 200, found
        kind, namespace, name, subresource = self._target()
        if subresource == "log":
            return 200, self.server.logs(namespace, name)
        if name:
            return 200, objects.get(kind, namespace, name)
        accept = accepting(
            self._query.get("labelSelector", ""), self._query.get("fieldSelector", "")
        )
        if self._query.get("watch") in ("true", "1"):
            stream(self, objects, kind, namespace, accept, self._query, self.server.stopping)
            return None
        with objects.changed:
            items, version = objects.list(kind, namespace, accept), objects.version
        return 200, {
            "apiVersion": kind.api_version,
            "kind": f"{kind.name}List",
            "metadata": {"resourceVersion": str(version)},
            "items": items,
        }

    def _post(self) -> tuple[int, Any]:
        kind, namespace, _, _ = self._target()
        body = admit(kind, self._named(self._body(), kind), self._strict())
        return 201, body if self._dry() else self.server.objects.create(kind, namespace, body)

    def _put(self) -> tuple[int, Any]:
        kind, namespace, name, subresource = self._target()
        return 200, self._store(kind, namespace, name, subresource, self._body())

    def _patch(self) -> tuple[int, Any]:
        kind, namespace, name, subresource = self._target()
        media = self.headers.get("content-type", "").partition(";")[0]
        if media.startswith("application/apply-patch"):
            return self._apply(kind, namespace, name, subresource)
        with self.server.objects.changed:
            live, patch = self.server.objects.get(kind, namespace, name), json.loads(self._raw)
            if media == "application/json-patch+json":
                wanted = patches.json_patch(live, patch)
            else:
                wanted = (
                    patches.strategic(live, patch)
                    if media == "application/strategic-merge-patch+json"
                    else patches.merge(live, patch)
                )
            return 200, self._store(kind, namespace, name, subresource, wanted)

    def _apply(self, kind: Kind, namespace: str, name: str, subresource: str) -> tuple[int, Any]:
        """Handle a server-side apply: create the object, or update it if it already exists."""
        objects, wanted = self.server.objects, self._named(self._body(), kind)
        manager = self._query.get("fieldManager", "")
        with objects.changed:
            try:
                live = objects.get(kind, namespace, name)
            except NotFound:
                body = admit(kind, wanted, self._strict())
                stored = body if self._dry() else objects.create(kind, namespace, body)
                status = 201
            else:
                previous = objects.applied.get((live["metadata"]["uid"], manager), {})
                stored = self._store(
                    kind, namespace, name, subresource, patches.apply(live, previous, wanted)
                )
                status = 200
            if not self._dry():
                objects.applied[stored["metadata"]["uid"], manager] = wanted
            return status, stored

    def _store(self, kind: Kind, namespace: str, name: str, subresource: str, body: Body) -> Body:
        objects = self.server.objects
        if subresource == "status":
            return objects.set_status(kind, namespace, name, body.get("status") or {})
        # Only a write to the `status` subresource changes the status.
        spec = {key: value for key, value in body.items() if key != "status"}
        body = admit(kind, spec, self._strict())
        return body if self._dry() else objects.replace(kind, namespace, name, body)

    def _delete(self) -> tuple[int, Any]:
        kind, namespace, name, _ = self._target()
        objects = self.server.objects
        if name:
            return 200, objects.get(kind, namespace, name) if self._dry() else objects.delete(
                kind, namespace, name
            )
        accept = accepting(
            self._query.get("labelSelector", ""), self._query.get("fieldSelector", "")
        )
        for body in objects.list(kind, namespace, accept):
            objects.delete(kind, body["metadata"].get("namespace", ""), body["metadata"]["name"])
        return _status(200, "deleted", "")

    def _target(self) -> tuple[Kind, str, str, str]:
        """Return the kind, namespace, name and subresource in the request's path."""
        group, version, rest = (
            ("", self._parts[1], self._parts[2:])
            if self._parts[0] == "api"
            else (*self._parts[1:3], self._parts[3:])
        )
        namespace = ""
        if rest[:1] == ["namespaces"] and len(rest) > 2 and rest[2] != "status":
            namespace, rest = rest[1], rest[2:]
        kind = self.server.objects.kinds.at(group, version, rest[0] if rest else "")
        if kind is None:
            raise _Refused(404, "the server could not find the requested resource")
        name, subresource = [*rest[1:], "", ""][:2]
        return kind, namespace, name, subresource

    def _body(self) -> Body:
        return (
            protobuf.decode(self._raw)
            if self._raw.startswith(protobuf.MAGIC)
            else yaml.load(self._raw, Loader=yaml.CSafeLoader)
        )

    def _named(self, body: Body, kind: Kind) -> Body:
        if body.get("kind") != kind.name or body.get("apiVersion") != kind.api_version:
            raise _Refused(
                400, f"{body.get('apiVersion')}, {body.get('kind')} does not belong at {self.path}"
            )
        return body

    def _strict(self) -> bool:
        return self._query.get("fieldValidation") == "Strict"

    def _dry(self) -> bool:
        return self._query.get("dryRun") == "All"


def _status(code: int, message: str, reason: str | None = None) -> tuple[int, Body]:
    reason = _REASONS.get(code, "") if reason is None else reason
    body = {
        "apiVersion": "v1",
        "kind": "Status",
        "metadata": {},
        "code": code,
        "message": message,
        "reason": reason,
    }
    return code, {**body, "status": "Success" if code < 400 else "Failure"}
