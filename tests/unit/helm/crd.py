"""Checks custom resources against their CRDs as a strict API server does.

    AWARES_CRDS/*.yaml --> schema of a kind --+-- closed schema -- jsonschema --+--> faults
                                              +-- CEL rules ------ celpy -------+

A closed schema refuses unknown fields. CEL rules about the previous object (`oldSelf`) are skipped.
"""

import copy
import re
from collections.abc import Iterator
from functools import cache, lru_cache
from typing import Any

import celpy
import yaml
from celpy.adapter import json_to_cel
from jsonschema import Draft202012Validator

from tests.crds import crd_directory
from tests.unit.helm.render import Doc, name_of

OWN_GROUP = re.compile(r"([a-z]+(\.authorization)?(\.k8s\.io)?)?")


@lru_cache(maxsize=1)
def definitions() -> dict[tuple[str, str], Doc]:
    """Return a map from each (apiVersion, kind) of the CRDs to its openAPIV3Schema."""
    found = {}
    for path in sorted(crd_directory().glob("*.yaml")):
        for doc in yaml.load_all(path.read_bytes(), yaml.CSafeLoader):
            spec = doc["spec"]
            for version in spec["versions"]:
                found[f"{spec['group']}/{version['name']}", spec["names"]["kind"]] = version[
                    "schema"
                ]["openAPIV3Schema"]
    return found


def is_custom(doc: Doc) -> bool:
    """Return whether the document is a custom resource, according to its apiVersion.

    Built-in apiVersions are, for example, "v1", "apps/v1" and "rbac.authorization.k8s.io/v1".
    Custom apiVersions are, for example, "ray.io/v1" and "gateway.networking.k8s.io/v1".
    """
    return not OWN_GROUP.fullmatch(doc["apiVersion"].rpartition("/")[0])


def faults(doc: Doc) -> list[str]:
    """Return the reasons why a strict API server with the CRDs would refuse the document."""
    key = doc["apiVersion"], doc["kind"]
    if key not in definitions():
        return [f"{name_of(doc)}: no definition of {doc['kind']} in {doc['apiVersion']}"]
    schema = definitions()[key]
    full = defaulted(doc, schema)
    errors = [
        f"{name_of(doc)}: {error.json_path.removeprefix('$.')}: {error.message}"
        for error in _validator(key).iter_errors(full)
    ]
    return errors + [f"{name_of(doc)}: {message}" for message in broken_rules(full, schema)]


@cache
def _validator(key: tuple[str, str]) -> Draft202012Validator:
    schema = closed(definitions()[key])
    schema["properties"]["metadata"] = {"type": "object"}
    return Draft202012Validator(schema)


def closed(schema: Any) -> Any:
    """Convert an OpenAPI schema to a JSON schema that refuses unknown fields."""
    if not isinstance(schema, dict):
        return schema
    kept = {
        key: value
        for key, value in schema.items()
        if not key.startswith("x-kubernetes-") and key not in ("format", "nullable", "default")
    }
    if schema.get("x-kubernetes-int-or-string"):
        kept.pop("type", None)
        kept["anyOf"] = [{"type": "integer"}, {"type": "string"}]
        return kept
    if "properties" in kept:
        kept["properties"] = {name: closed(part) for name, part in kept["properties"].items()}
    for key in ("items", "additionalProperties"):
        if key in kept:
            kept[key] = closed(kept[key])
    open_object = (
        schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in kept
    )
    if kept.get("type") == "object" and "properties" in kept and not open_object:
        kept["additionalProperties"] = False
    if schema.get("nullable") and isinstance(kept.get("type"), str):
        kept["type"] = [kept["type"], "null"]
    return kept


def defaulted(value: Any, schema: Any) -> Any:
    """Return `value` with the schema's defaults for missing fields.

    The API server evaluates CEL rules after it has set the defaults.
    """
    if isinstance(value, dict):
        properties, more = schema.get("properties", {}), schema.get("additionalProperties")
        full = {
            key: copy.deepcopy(part["default"])
            for key, part in properties.items()
            if "default" in part
        } | value
        return {
            key: defaulted(part, properties.get(key, more if isinstance(more, dict) else {}))
            for key, part in full.items()
        }
    if isinstance(value, list):
        return [defaulted(part, schema.get("items", {})) for part in value]
    return value


def broken_rules(value: Any, schema: Any, path: str = "") -> Iterator[str]:
    """Yield the message of each CEL rule that `value`, or any part of it, breaks."""
    for rule in schema.get("x-kubernetes-validations", ()):
        if "oldSelf" not in rule["rule"] and not holds(rule["rule"], value):
            yield f"{path or 'document'}: {rule.get('message', rule['rule'])}"
    if isinstance(value, dict):
        properties, more = schema.get("properties", {}), schema.get("additionalProperties")
        for key, part in value.items():
            yield from broken_rules(
                part,
                properties.get(key, more if isinstance(more, dict) else {}),
                f"{path}.{key}".lstrip("."),
            )
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield from broken_rules(part, schema.get("items", {}), f"{path}[{index}]")


def holds(rule: str, value: Any) -> bool:
    """Return whether a CEL rule holds for `value`. A rule that raises an error does not hold."""
    try:
        return bool(_program(rule).evaluate({"self": json_to_cel(value)}))
    except celpy.CELEvalError:
        return False


@cache
def _program(rule: str) -> celpy.Runner:
    environment = celpy.Environment()
    return environment.program(environment.compile(rule))
