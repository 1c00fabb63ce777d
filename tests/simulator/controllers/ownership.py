"""Writes and reads the owner references of the objects that controllers create."""

from typing import Any

from tests.simulator.api.kinds import Kind

Body = dict[str, Any]


def reference(kind: Kind, owner: Body) -> Body:
    """Return the owner reference that names `owner` as the controller."""
    names = {
        "apiVersion": kind.api_version,
        "kind": kind.name,
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
    }
    return {**names, "controller": True, "blockOwnerDeletion": True}


def owned(kind: Kind, owner: Body, name: str, body: Body) -> Body:
    """Return `body` with the name `name` and an owner reference to `owner`."""
    metadata = {
        **body.get("metadata", {}),
        "name": name,
        "ownerReferences": [reference(kind, owner)],
    }
    return {**body, "metadata": metadata}


def belongs(owner: Body, body: Body) -> bool:
    """Return whether `owner` is an owner of `body`."""
    references = body["metadata"].get("ownerReferences") or []
    return any(item["uid"] == owner["metadata"]["uid"] for item in references)
