"""Answers discovery requests: versions, groups, resources and OpenAPI documents.

The OpenAPI documents say only that PATCH supports fieldValidation. Clients therefore let the server
validate all fields.
"""

from typing import Any

from tests.simulator.api.kinds import Kinds

Body = dict[str, Any]


def answer(kinds: Kinds, parts: list[str], version: str) -> Body | None:
    """Return the document at a discovery path, or None for any other path.

    `parts` are the components of the path. `version` is Kubernetes' version, such as "v1.36.0".
    """
    match parts:
        case ["version"]:
            major, minor, _ = version.removeprefix("v").split(".")
            return {
                "major": major,
                "minor": minor,
                "gitVersion": version,
                "platform": "linux/amd64",
            }
        case ["api"]:
            return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}
        case ["apis"]:
            return {
                "kind": "APIGroupList",
                "apiVersion": "v1",
                "groups": [_group(name, found) for name, found in kinds.groups().items()],
            }
        case ["api", "v1"]:
            return _resources(kinds, "", "v1")
        case ["apis", group, group_version]:
            return _resources(kinds, group, group_version)
        case ["openapi", "v3"]:
            names = [
                "api/v1",
                *(
                    f"apis/{name}/{found}"
                    for name, versions in kinds.groups().items()
                    for found in versions
                ),
            ]
            return {"paths": {name: {"serverRelativeURL": f"/openapi/v3/{name}"} for name in names}}
        case ["openapi", "v3", "api", "v1"]:
            return _document(kinds, "", "v1", version)
        case ["openapi", "v3", "apis", group, group_version]:
            return _document(kinds, group, group_version, version)
    return None


def _document(kinds: Kinds, group: str, group_version: str, version: str) -> Body:
    parameters = [
        {"name": name, "in": "query", "schema": {"type": "string"}}
        for name in ("fieldValidation", "fieldManager", "dryRun")
    ]
    paths = {
        f"/{kind.plural}/{{name}}": {
            "patch": {
                "parameters": parameters,
                "responses": {"200": {"description": "OK"}},
                "x-kubernetes-group-version-kind": {
                    "group": group,
                    "version": group_version,
                    "kind": kind.name,
                },
            }
        }
        for kind in kinds.all
        if (kind.group, kind.version) == (group, group_version)
    }
    return {
        "openapi": "3.0.0",
        "info": {"title": "simulator", "version": version},
        "paths": paths,
        "components": {"schemas": {}},
    }


def _group(name: str, versions: list[str]) -> Body:
    listed = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": listed, "preferredVersion": listed[0]}


def _resources(kinds: Kinds, group: str, version: str) -> Body:
    name = f"{group}/{version}" if group else version
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": name,
        "resources": kinds.resources(group, version),
    }
