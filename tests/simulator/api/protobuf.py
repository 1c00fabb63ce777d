"""Decodes Secrets, ConfigMaps and Namespaces from Kubernetes' protobuf encoding.

Helm uses this encoding for its release records. `kubectl create` uses it for all three kinds.
"""

import base64
from collections.abc import Iterator
from typing import Any

MAGIC = b"k8s\0"
_METADATA = {
    1: "name",
    2: "generateName",
    3: "namespace",
    6: "resourceVersion",
    11: "labels",
    12: "annotations",
}
_FIELDS = {
    "Secret": {2: "data", 3: "type", 4: "stringData"},
    "ConfigMap": {2: "data"},
    "Namespace": {},
}
_MAPS = frozenset({"labels", "annotations", "data", "stringData"})


def decode(raw: bytes) -> dict[str, Any]:
    """Decode one object. Raises ValueError for a kind that _FIELDS does not list."""
    unknown = dict(_messages(raw.removeprefix(MAGIC)))
    meta = {number: value.decode() for number, value in _messages(unknown[1])}
    if meta[2] not in _FIELDS:
        raise ValueError(
            f"a {meta[2]} in protobuf: send JSON, only {', '.join(_FIELDS)} are read in that "
            "form here"
        )
    body: dict[str, Any] = {"apiVersion": meta[1], "kind": meta[2]}
    binary = meta[2] == "Secret"
    for number, value in _messages(unknown[2]):
        if number == 1:
            body["metadata"] = _fields(value, _METADATA, binary=False)
    return body | _fields(unknown[2], _FIELDS[meta[2]], binary)


def _fields(raw: bytes, names: dict[int, str], binary: bool) -> dict[str, Any]:
    """Return the message's fields whose numbers are in `names`. Fields with empty text are omitted.

    Maps become dicts. If `binary` is true, the values of `data` are bytes, and are returned as
    base64 text.
    """
    found: dict[str, Any] = {}
    for number, value in _messages(raw):
        name = names.get(number)
        if name in _MAPS:
            entry = dict(_messages(value))
            text = entry.get(2, b"")
            found.setdefault(name, {})[entry[1].decode()] = (
                base64.b64encode(text).decode() if binary and name == "data" else text.decode()
            )
        elif name and value:
            found[name] = value.decode()
    return found


def _messages(raw: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the field number and the bytes of every length-delimited field. Skip varint fields."""
    position = 0
    while position < len(raw):
        tag, position = _varint(raw, position)
        length, position = _varint(raw, position)
        if tag & 7 == 2:
            yield tag >> 3, raw[position : position + length]
            position += length
        elif tag & 7:
            raise ValueError(f"protobuf wire type {tag & 7} is not read here")


def _varint(raw: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = raw[position]
        value |= (byte & 127) << shift
        position, shift = position + 1, shift + 7
        if byte < 128:
            return value, position
