"""Checks and completes a custom resource before it is stored, as an API server does.

CEL rules and webhooks are ignored. tests/unit/helm/crd.py evaluates the CEL rules.
"""

import copy
from collections.abc import Iterator
from functools import cache
from typing import Any

from jsonschema import Draft202012Validator

from tests.simulator.api.kinds import Kind


class Invalid(Exception):
    """Raised if the API server refuses an object. Helm prints the message of this exception.

    `status` is the HTTP status: 400 for unknown fields, and 422 for all other faults.
    """

    def __init__(self, message: str, status: int = 422) -> None:
        super().__init__(message)
        self.status = status


def admit(kind: Kind, body: dict[str, Any], strict: bool) -> dict[str, Any]:
    """Return the object as the API server stores it: with defaults and without unknown fields.

    Raises Invalid if the object breaks the schema, or if `strict` is set and a field is unknown.
    """
    if kind.schema is None:
        return body
    body = copy.deepcopy(body)
    unknown = list(_prune(body, _root(kind.schema), ""))
    if unknown and strict:
        fields = ", ".join(f'unknown field "{path}"' for path in unknown)
        raise Invalid(f"strict decoding error: {fields}", 400)
    _fill(body, kind.schema)
    errors = sorted(
        _validator(kind).iter_errors(body), key=lambda error: list(map(str, error.path))
    )
    if errors:
        name = body.get("metadata", {}).get("name", "")
        listed = "; ".join(
            f"{'.'.join(map(str, error.path)) or '<root>'}: {error.message[:300]}"
            for error in errors[:5]
        )
        raise Invalid(f'{kind.name}.{kind.group} "{name}" is invalid: {listed}')
    return body


def _root(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema with a property `metadata` that accepts any fields.

    CRDs do not describe the fields of metadata, because the API server itself checks them.
    """
    free = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {**schema, "properties": {**schema.get("properties", {}), "metadata": free}}


def _prune(value: Any, schema: dict[str, Any], path: str) -> Iterator[str]:
    """Remove the fields that the schema does not allow, and yield the path of each of them."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _prune(item, schema.get("items", {}), f"{path}[{index}]")
    if not isinstance(value, dict):
        return
    listed, more = schema.get("properties"), schema.get("additionalProperties")
    for key in list(value):
        inner = f"{path}.{key}".lstrip(".")
        if listed and key in listed:
            yield from _prune(value[key], listed[key], inner)
        elif isinstance(more, dict):
            yield from _prune(value[key], more, inner)
        elif listed and not more and not schema.get("x-kubernetes-preserve-unknown-fields"):
            del value[key]
            yield inner


def _fill(value: Any, schema: dict[str, Any]) -> None:
    """Set each missing field of `value` for which the schema has a default."""
    if isinstance(value, list):
        for item in value:
            _fill(item, schema.get("items", {}))
    if not isinstance(value, dict):
        return
    for key, inner in schema.get("properties", {}).items():
        if key not in value and "default" in inner:
            value[key] = copy.deepcopy(inner["default"])
        if key in value:
            _fill(value[key], inner)
    more = schema.get("additionalProperties")
    if isinstance(more, dict):
        for item in value.values():
            _fill(item, more)


@cache
def _validator(kind: Kind) -> Draft202012Validator:
    return Draft202012Validator(_plain(kind.schema))


def _plain(schema: Any) -> Any:
    """Convert a structural schema of Kubernetes to JSON Schema.

    Nullable fields accept null, and int-or-string fields accept integers and strings. The keywords
    `format` and `x-kubernetes-*` are removed.
    """
    if isinstance(schema, list):
        return [_plain(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {
        key: _plain(value)
        for key, value in schema.items()
        if not key.startswith("x-kubernetes-") and key not in ("format", "nullable")
    }
    if schema.get("x-kubernetes-int-or-string") is True:
        plain.pop("anyOf", None)
        plain["type"] = ["integer", "string"]
    if schema.get("nullable") is True and isinstance(plain.get("type"), str):
        plain["type"] = [plain["type"], "null"]
    return plain
