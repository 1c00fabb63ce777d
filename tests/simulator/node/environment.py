"""Builds the environment of a container.

The values come from literals, Secrets, ConfigMaps and the downward API. `expand` replaces $(NAME)
in values and commands.
"""

import base64
import re
from collections.abc import Mapping
from typing import Any

from tests.simulator.api.objects import Body, NotFound, Objects

_REFERENCE = re.compile(r"\$\$|\$\((?P<name>[\w.-]+)\)")


def resolve(objects: Objects, pod: Body, container: Body) -> dict[str, str]:
    """Return the environment variables of the container.

    Raises NotFound if a required Secret, ConfigMap or key is missing.
    """
    found: dict[str, str] = {}
    namespace = pod["metadata"]["namespace"]
    for source in container.get("envFrom") or []:
        for kind, field in (("ConfigMap", "configMapRef"), ("Secret", "secretRef")):
            if field in source:
                values = _values(objects, kind, namespace, source[field])
                found |= {source.get("prefix", "") + name: value for name, value in values.items()}
    for variable in container.get("env") or []:
        value = variable.get("value", "")
        if "valueFrom" in variable:
            value = _from(objects, pod, container, variable["valueFrom"])
        if value is not None:
            found[variable["name"]] = expand(value, found)
    return found


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Replace $(NAME) with the variable's value, and $$ with a dollar sign.

    A reference to an unknown variable stays unchanged.
    """
    return _REFERENCE.sub(
        lambda match: "$" if match[0] == "$$" else variables.get(match["name"], match[0]), text
    )


def _from(objects: Objects, pod: Body, container: Body, source: Mapping[str, Any]) -> str | None:
    namespace = pod["metadata"]["namespace"]
    for kind, field in (("ConfigMap", "configMapKeyRef"), ("Secret", "secretKeyRef")):
        if field in source:
            reference = source[field]
            values = _values(objects, kind, namespace, reference)
            if reference["key"] not in values and not reference.get("optional"):
                raise NotFound(f'{kind} "{reference["name"]}" has no key "{reference["key"]}"')
            return values.get(reference["key"])
    if "fieldRef" in source:
        return _field(pod, source["fieldRef"]["fieldPath"])
    resource = source["resourceFieldRef"]["resource"]
    kind, _, name = resource.partition(".")
    return str(container.get("resources", {}).get(kind, {}).get(name, "0"))


def _values(
    objects: Objects, kind: str, namespace: str, reference: Mapping[str, Any]
) -> dict[str, str]:
    try:
        data = (
            objects.get(objects.kinds.of("v1", kind), namespace, reference["name"]).get("data")
            or {}
        )
    except NotFound:
        if reference.get("optional"):
            return {}
        raise
    return {
        name: base64.b64decode(text).decode() if kind == "Secret" else text
        for name, text in data.items()
    }


def _field(pod: Body, path: str) -> str:
    if found := re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path):
        return (pod["metadata"].get(found[1]) or {}).get(found[2], "")
    value: Any = pod
    for part in path.split("."):
        value = value.get(part, "") if isinstance(value, dict) else ""
    return str(value)
