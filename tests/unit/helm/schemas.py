"""Checks objects of built-in kinds against Kubernetes' strict schemas.

The schemas come from the package kubernetes-validate.
"""

import json
from functools import cache

import kubernetes_validate
from jsonschema import Draft202012Validator
from kubernetes_validate.utils import schema_contents
from referencing import Registry, Resource

from tests.unit.helm.render import Doc, name_of

VERSIONS = ("1.30", "1.34", "1.37")


def faults(doc: Doc, version: str) -> list[str]:
    """Return the reasons why this version of Kubernetes refuses the document in strict mode."""
    return list(_faults(json.dumps(doc, sort_keys=True), version))


@cache
def _faults(text: str, version: str) -> tuple[str, ...]:
    doc = json.loads(text)
    try:
        validator = _validator(doc["apiVersion"], doc["kind"], version)
    except FileNotFoundError:
        return (
            f"{name_of(doc)}: Kubernetes {version} has no kind {doc['kind']} in "
            f"{doc['apiVersion']}",
        )
    return tuple(
        f"{name_of(doc)}: {error.json_path.removeprefix('$.')}: {error.message}"
        for error in validator.iter_errors(doc)
    )


@cache
def _validator(api_version: str, kind: str, version: str) -> Draft202012Validator:
    """Return the validator of a kind.

    The name of the schema file consists of the kind, the first part of the group, and the version.

    Example:
        rbac.authorization.k8s.io/v1, Role -> role-rbac-v1.json
    """
    group, _, level = api_version.rpartition("/")
    suffix = f"{group.partition('.')[0]}-{level}" if group else level
    schema = schema_contents(f"{_folder(version)}/{kind.lower()}-{suffix}.json", version)
    return Draft202012Validator(
        schema, registry=Resource.from_contents(schema) @ _definitions(version)
    )


@cache
def _definitions(version: str) -> Registry:
    return (
        Resource.from_contents(schema_contents(f"{_folder(version)}/_definitions.json", version))
        @ Registry()
    )


def _folder(version: str) -> str:
    assert version in {
        known.rpartition(".")[0] for known in kubernetes_validate.utils.all_versions()
    }
    return f"kubernetes-json-schema/v{version}.0-local-strict"
