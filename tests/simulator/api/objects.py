"""Holds every object of the simulated cluster, with resource versions, owners and an event log.

The methods are atomic, and return copies that callers may change.
"""

import base64
import copy
import datetime
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.simulator.api.kinds import Kind, Kinds

Body = dict[str, Any]
Key = tuple[str, str, str, str]  # group, kind, namespace, name


class NotFound(LookupError):
    """The object does not exist (404)."""


class Conflict(Exception):
    """The object already exists, or has changed since the client read it (HTTP status 409)."""


@dataclass(frozen=True, slots=True)
class Event:
    """One change of an object.

    Example:
        Event(17, "MODIFIED", kind, {"metadata": {"name": "grpo"}})
    """

    version: int
    """The object's resourceVersion after the change."""
    type: str
    """ADDED, MODIFIED or DELETED."""
    kind: Kind
    body: Body
    """The object after the change, or the deleted object."""


def key_of(kind: Kind, namespace: str, name: str) -> Key:
    """Return the key under which Objects stores this object."""
    return kind.group, kind.name, namespace if kind.namespaced else "", name


def now() -> str:
    """Return the current time in Kubernetes' format, in whole seconds."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Objects:
    """Stores all objects by kind, namespace and name."""

    def __init__(self, kinds: Kinds) -> None:
        self.kinds = kinds
        # The lock of all objects, and a condition that is notified of each change.
        self.changed = threading.Condition(threading.RLock())
        # Maps (uid of an object, field manager) to the body that the manager has applied last.
        self.applied: dict[tuple[str, str], Body] = {}
        self.events: list[Event] = []
        # The resourceVersion of the last change.
        self.version = 1
        self._items: dict[Key, tuple[Kind, Body]] = {}
        for name in ("default", "kube-system"):
            self.create(
                kinds.of("v1", "Namespace"),
                "",
                {"metadata": {"name": name}, "status": {"phase": "Active"}},
            )

    def get(self, kind: Kind, namespace: str, name: str) -> Body:
        """Return one object. Raises NotFound if it does not exist."""
        with self.changed:
            found = self._items.get(key_of(kind, namespace, name))
            if found is None:
                raise NotFound(f'{kind.plural} "{name}" not found')
            return self._as(kind, found[1])

    def list(
        self, kind: Kind, namespace: str = "", accept: Callable[[Body], bool] = lambda body: True
    ) -> list[Body]:
        """Return the objects of a kind that `accept` accepts.

        If `namespace` is empty, return the objects of all namespaces.
        """
        with self.changed:
            found = [
                self._as(kind, body)
                for key, (_, body) in self._items.items()
                if key[:2] == (kind.group, kind.name)
            ]
        return [
            body
            for body in found
            if namespace in ("", body["metadata"].get("namespace", "")) and accept(body)
        ]

    def create(self, kind: Kind, namespace: str, body: Body) -> Body:
        """Store a new object, and return it.

        If the object has owners but none of them exists, remove the object at once, as Kubernetes'
        garbage collector does.

        Raises Conflict if the object exists, and NotFound if its namespace does not exist.
        """
        body = copy.deepcopy(body)
        metadata = body.setdefault("metadata", {})
        if not metadata.get("name"):
            metadata["name"] = (
                f"{metadata.get('generateName', kind.name.lower() + '-')}{uuid.uuid4().hex[:5]}"
            )
        if kind.namespaced:
            metadata["namespace"] = namespace or "default"
        with self.changed:
            if kind.namespaced and ("", "Namespace", "", metadata["namespace"]) not in self._items:
                raise NotFound(f'namespaces "{metadata["namespace"]}" not found')
            if key_of(kind, metadata.get("namespace", ""), metadata["name"]) in self._items:
                raise Conflict(f'{kind.plural} "{metadata["name"]}" already exists')
            metadata |= {"uid": str(uuid.uuid4()), "creationTimestamp": now(), "generation": 1}
            created = self._put("ADDED", kind, _normal(kind, body))
            if self._orphaned(created):
                self._remove(kind, created)
            return created

    def replace(self, kind: Kind, namespace: str, name: str, body: Body) -> Body:
        """Store a changed object and keep its old status.

        - Raises NotFound if the object does not exist.
        - Raises Conflict if `body` has another resourceVersion than the stored object.
        """
        with self.changed:
            old = self.get(kind, namespace, name)
            body = _normal(kind, copy.deepcopy(body))
            given = body.setdefault("metadata", {}).get("resourceVersion")
            if given and given != old["metadata"]["resourceVersion"]:
                raise Conflict(
                    f'{kind.plural} "{name}": the object has been modified; apply your '
                    "changes to the latest version"
                )
            kept = (
                "uid",
                "creationTimestamp",
                "name",
                "namespace",
                "generation",
                "deletionTimestamp",
            )
            body["metadata"] |= {
                field: old["metadata"][field] for field in kept if field in old["metadata"]
            }
            body.pop("status", None)
            if "status" in old:
                body["status"] = old["status"]
            if _without_metadata(body) != _without_metadata(old):
                body["metadata"]["generation"] += 1
            return self._put("MODIFIED", kind, body)

    def set_status(self, kind: Kind, namespace: str, name: str, status: Body) -> Body:
        """Replace only the status. Raises NotFound if the object does not exist."""
        with self.changed:
            body = self.get(kind, namespace, name)
            if body.get("status") == status:
                return body
            return self._put("MODIFIED", kind, {**body, "status": copy.deepcopy(status)})

    def delete(self, kind: Kind, namespace: str, name: str) -> Body:
        """Remove an object, and each object that thereby loses its last owner.

        A Namespace is removed with all objects in it. Raises NotFound if the object does not exist.
        """
        with self.changed:
            body = self.get(kind, namespace, name)
            del self._items[key_of(kind, namespace, name)]
            self._log("DELETED", kind, body)
            self._collect(body["metadata"]["uid"])
            if kind.name == "Namespace":
                self._empty(name)
            return body

    def _collect(self, owner: str) -> None:
        for other, child in list(self._items.values()):
            if any(
                reference["uid"] == owner
                for reference in child["metadata"].get("ownerReferences", [])
            ) and self._orphaned(child):
                self._remove(other, child)

    def _orphaned(self, body: Body) -> bool:
        owners = body["metadata"].get("ownerReferences", [])
        return bool(owners) and not any(self._lives(reference["uid"]) for reference in owners)

    def _lives(self, uid: str) -> bool:
        return any(body["metadata"]["uid"] == uid for _, body in self._items.values())

    def _empty(self, namespace: str) -> None:
        for kind, body in list(self._items.values()):
            if body["metadata"].get("namespace") == namespace:
                self._remove(kind, body)

    def _remove(self, kind: Kind, body: Body) -> None:
        namespace, name = body["metadata"].get("namespace", ""), body["metadata"]["name"]
        if key_of(kind, namespace, name) in self._items:
            self.delete(kind, namespace, name)

    def _put(self, event: str, kind: Kind, body: Body) -> Body:
        metadata = body["metadata"]
        self._items[key_of(kind, metadata.get("namespace", ""), metadata["name"])] = (kind, body)
        self._log(event, kind, body)
        return self._as(kind, body)

    def _log(self, event: str, kind: Kind, body: Body) -> None:
        self.version += 1
        body["metadata"]["resourceVersion"] = str(self.version)
        self.events.append(Event(self.version, event, kind, self._as(kind, body)))
        self.changed.notify_all()

    def _as(self, kind: Kind, body: Body) -> Body:
        return {
            "apiVersion": kind.api_version,
            "kind": kind.name,
            **copy.deepcopy({k: v for k, v in body.items() if k not in ("apiVersion", "kind")}),
        }


def _without_metadata(body: Body) -> Body:
    return {
        key: value
        for key, value in body.items()
        if key not in ("metadata", "status", "apiVersion", "kind")
    }


def _normal(kind: Kind, body: Body) -> Body:
    """Merge the stringData of a Secret into its data. Return all other objects unchanged."""
    if kind.name == "Secret" and "stringData" in body:
        text = body.pop("stringData") or {}
        body["data"] = {
            **(body.get("data") or {}),
            **{key: base64.b64encode(str(value).encode()).decode() for key, value in text.items()},
        }
    return body
