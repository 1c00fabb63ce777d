"""Applies Kubernetes' four patch formats: merge, JSON, strategic merge and server-side apply.

Server-side apply removes fields that the same manager applied before and now omits. Unlike a real
server, it replaces whole lists, and finds no conflicts between managers.
"""

import copy
from typing import Any

_MERGE_KEYS = {
    "containers": ("name",),
    "initContainers": ("name",),
    "volumes": ("name",),
    "env": ("name",),
    "volumeMounts": ("mountPath",),
    "ports": ("containerPort", "port"),
    "imagePullSecrets": ("name",),
    "secrets": ("name",),
    "ownerReferences": ("uid",),
    "conditions": ("type",),
    "topologySpreadConstraints": ("topologyKey",),
}


def merge(target: Any, patch: Any) -> Any:
    """Apply a merge patch (RFC 7386): merge objects, delete nulls, replace everything else."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), value)
    return merged


def apply(live: dict[str, Any], previous: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """Apply `wanted` to `live` by server-side apply.

    `previous` is what the same field manager applied last time. Fields that are in `previous` but
    not in `wanted` are removed.
    """
    return merge(_without(live, previous, wanted), wanted)


def _without(live: Any, previous: Any, wanted: Any) -> Any:
    if not (isinstance(live, dict) and isinstance(previous, dict) and isinstance(wanted, dict)):
        return live
    gone = previous.keys() - wanted.keys()
    return {
        key: _without(value, previous.get(key), wanted.get(key))
        for key, value in live.items()
        if key not in gone
    }


def strategic(target: Any, patch: Any, field: str = "") -> Any:
    """Apply a strategic merge patch.

    Lists in _MERGE_KEYS are merged item by item, and other lists are replaced. Supported
    directives:

    - `$patch: replace` in an object
    - `$patch: delete` in an item of a list
    - `$retainKeys` and `$deleteFromPrimitiveList`
    """
    if isinstance(patch, dict):
        return _strategic_object(target, patch)
    if isinstance(patch, list) and field in _MERGE_KEYS:
        return _strategic_list(target or [], patch, _MERGE_KEYS[field])
    return copy.deepcopy(patch)


def _strategic_object(target: Any, patch: dict[str, Any]) -> dict[str, Any]:
    if patch.get("$patch") == "replace":
        return {key: copy.deepcopy(value) for key, value in patch.items() if key != "$patch"}
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        directive, _, named = key.partition("/")
        if directive == "$deleteFromPrimitiveList":
            merged[named] = [item for item in merged.get(named, []) if item not in value]
        elif directive == "$retainKeys":
            merged = {kept: merged[kept] for kept in value if kept in merged}
        elif key.startswith("$"):
            continue
        elif value is None:
            merged.pop(key, None)
        else:
            merged[key] = strategic(merged.get(key), value, key)
    return merged


def _strategic_list(target: list[Any], patch: list[Any], keys: tuple[str, ...]) -> list[Any]:
    merged = list(target)
    for item in patch:
        if not isinstance(item, dict):
            return copy.deepcopy(patch)
        key = next((key for key in keys if key in item), keys[0])
        found = [index for index, old in enumerate(merged) if old.get(key) == item.get(key)]
        if item.get("$patch") == "delete":
            merged = [old for index, old in enumerate(merged) if index not in found]
        elif found:
            merged[found[0]] = strategic(merged[found[0]], item)
        else:
            merged.append(copy.deepcopy(item))
    return merged


def json_patch(document: Any, operations: list[dict[str, Any]]) -> Any:
    """Apply a JSON patch (RFC 6902) with the operations add, remove, replace and test.

    - Raises KeyError or IndexError for a path that does not exist.
    - Raises ValueError for a `test` that fails, and for any other operation.
    """
    document = copy.deepcopy(document)
    for operation in operations:
        *way, last = [
            part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]
        ]
        holder = document
        for part in way:
            holder = holder[int(part) if isinstance(holder, list) else part]
        _operate(holder, last, operation)
    return document


def _operate(holder: Any, last: str, operation: dict[str, Any]) -> None:
    verb = operation["op"]
    key: Any = last
    if isinstance(holder, list):
        key = len(holder) if last == "-" else int(last)
        if not 0 <= key <= len(holder):
            raise IndexError(f"{operation['path']} is outside the list")
    if verb == "add" and isinstance(holder, list):
        holder.insert(key, operation["value"])
    elif verb == "add":
        holder[key] = operation["value"]
    elif verb == "remove":
        del holder[key]
    elif verb == "replace":
        holder[key]  # Raises KeyError or IndexError if there is no value to replace.
        holder[key] = operation["value"]
    elif verb == "test":
        if holder[key] != operation["value"]:
            raise ValueError(f"test of {operation['path']} failed")
    else:
        raise ValueError(f"JSON patch operation {verb!r} is not known here")
