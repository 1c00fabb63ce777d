"""Evaluates the IAM policies in manifests/. Supports only the features that these policies use.

AWS's IAM reference defines the features in "Policy evaluation logic" and "Condition operators".
"""

import json
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

BUCKET, PREFIX = "MY-BUCKET", "MY-PREFIX"


def statements(path: Path) -> list[dict[str, Any]]:
    """Return the statements of the policy in a file.

    The file is the input of an AWS command. Its only key holds the policy as JSON text.
    """
    (document,) = yaml.safe_load(path.read_text()).values()
    return json.loads(document)["Statement"]


def actions(path: Path) -> set[str]:
    """Return all actions that a policy allows on at least one resource."""
    return {
        action
        for statement in statements(path)
        if statement["Effect"] == "Allow"
        for action in statement["Action"]
    }


def allows(
    path: Path, action: str, key: str | None = None, context: Mapping[str, str] | None = None
) -> bool:
    """Return whether the policy allows `action` on the object `key`.

    `key` is None for an action on the bucket. `context` holds the request's condition keys, such as
    `s3:prefix`.
    """
    arn = f"arn:aws:s3:::{BUCKET}" + (f"/{key}" if key is not None else "")
    return any(
        statement["Effect"] == "Allow"
        and action in statement["Action"]
        and any(fnmatchcase(arn, resource) for resource in statement["Resource"])
        and _holds(statement.get("Condition", {}), context or {})
        for statement in statements(path)
    )


def _holds(conditions: Mapping[str, Mapping[str, list[str]]], context: Mapping[str, str]) -> bool:
    for operator, wanted in conditions.items():
        for key, patterns in wanted.items():
            if key not in context:
                if not operator.endswith("IfExists"):
                    return False
            elif not any(fnmatchcase(context[key], pattern) for pattern in patterns):
                return False
    return True
