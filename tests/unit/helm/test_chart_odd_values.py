"""Tests that unusual values render valid documents, and that contradictory values are refused.

Examples of unusual values are large numbers, and names that consist of digits.
"""

from typing import Any

import pytest

from tests.unit.helm import crd, operator_rules, schemas, security
from tests.unit.helm.cases import ALL_JOBS, FIXED, on_base
from tests.unit.helm.pods import expand
from tests.unit.helm.render import refusal, render


def _group(**values: Any) -> dict[str, Any]:
    return {"cluster": {"groups": {"cpu": values}}}


TAKEN: dict[str, dict[str, Any]] = {
    "large numbers of a group": _group(
        maxReplicas=2000000, priority=1000000, idleTimeoutSeconds=31536000
    ),
    "a large idle timeout": {"cluster": {"autoscaler": {"idleTimeoutSeconds": 31536000}}},
    "many retries": {"jobs": {"grpo": {"backoffLimit": 1000000, "submitterBackoffLimit": 1000000}}},
    "long deadlines": {
        "jobs": {"grpo": {"activeDeadlineSeconds": 31536000, "ttlSecondsAfterFinished": 31536000}}
    },
    "a long deletion delay": {"endpoint": {"clusterDeletionDelaySeconds": 31536000}},
    "users of OpenShift's ranges": {
        "podSecurity": {"runAsUser": 1000650000, "runAsGroup": 1000650000, "fsGroup": 1000650000}
    },
    "a chart's name of digits": {"nameOverride": "5"},
    "service accounts of digits": {
        "serviceAccounts": {"runs": {"name": "5"}, "endpoint": {"name": "6"}}
    },
    "priority classes of digits": {
        "cluster": {"priorityClassName": "5"},
        "endpoint": {"priorityClassName": "6"},
    },
    "labels and selectors that look like other types": {
        "cluster": {
            "head": {"nodeSelector": {"a": "5"}},
            "groups": {"cpu": {"nodeSelector": {"b": "true"}, "labels": {"c": "1e3"}}},
        },
        "pods": {"labels": {"d": "null"}, "annotations": {"e": "0x10"}},
    },
    "a queue of digits": FIXED | {"queue": {"kind": "kueue", "name": "5", "priorityClass": "6"}},
    "variables that look like other types": {
        "pods": {"env": [{"name": "A", "value": "5"}, {"name": "B", "value": "true"}]}
    },
    "a secret of digits": {
        "store": {"existingSecret": "5"},
        "auth": {"existingSecret": "6"},
        "endpoint": {"token": {"existingSecret": "7"}},
    },
}


@pytest.mark.parametrize("name", TAKEN)
def test_odd_values_render_valid_documents(name: str) -> None:
    docs = render(on_base(ALL_JOBS, TAKEN[name]))
    found = [
        fault
        for doc in docs
        for fault in (
            crd.faults(doc) if crd.is_custom(doc) else schemas.faults(doc, schemas.VERSIONS[0])
        )
    ]
    found += [
        fault
        for pod in expand(docs)
        for fault in (*schemas.faults(pod, schemas.VERSIONS[0]), *security.faults(pod))
    ]
    assert found + [fault for doc in docs for fault in operator_rules.faults(doc)] == []


CLASHES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "no group at all": (
        {
            "cluster": {
                "groups": {name: {"enabled": False} for name in ("learner", "rollout", "cpu")}
            },
            "jobs": {},
        },
        ("cluster.groups",),
    ),
    "an account that nobody makes": (
        {"serviceAccounts": {"runs": {"create": False}}},
        ("serviceAccounts.runs", "create"),
    ),
    "a schedule without five fields": ({"jobs": {"grpo": {"schedule": "x"}}}, ("schedule", "x")),
    "requests above limits": (
        {"cluster": {"head": {"resources": {"requests": {"cpu": "9"}, "limits": {"cpu": "4"}}}}},
        ("cluster.head.resources", "cpu", "9", "4"),
    ),
    "an object store above shm": (
        _group(objectStoreMemory=9000000000, shm="4Gi"),
        ("cluster.groups.cpu", "objectStoreMemory", "4Gi"),
    ),
    "shm as large as the limit": (_group(shm="64Gi"), ("cluster.groups.cpu", "shm", "64Gi")),
    "a label of the chart": (
        {"pods": {"labels": {"app.kubernetes.io/component": "x"}}},
        ("pods.labels", "component"),
    ),
    "a variable of the chart": (
        {"pods": {"env": [{"name": "HOME", "value": "/x"}]}},
        ("pods.env", "HOME"),
    ),
    "root": ({"podSecurity": {"runAsUser": 0}}, ("podSecurity", "runAsUser")),
    "an interval that is none": (
        {"monitoring": {"podMonitors": {"enabled": True, "interval": "x"}}},
        ("interval",),
    ),
}


@pytest.mark.parametrize("name", CLASHES)
def test_clashes_are_refused(name: str) -> None:
    """Check that contradictory values are refused, with exactly one message that names them."""
    changes, words = CLASHES[name]
    # Messages of the schema name `store/bucket`, and messages of templates name `store.bucket`.
    lines = [line.replace("/", ".") for line in refusal(on_base(ALL_JOBS, changes)).splitlines()]
    assert len([line for line in lines if all(word in line for word in words)]) == 1


@pytest.mark.parametrize("major", (4, 3))
@pytest.mark.parametrize(
    "path",
    (
        "rayVersion",
        "store.prefix",
        "cluster.head.resources",
        "groupDefaults.spot.enabled",
        "monitoring.rules",
    ),
)
def test_the_schema_reports_a_removed_default(path: str, major: int) -> None:
    """Check that the schema reports the missing key if a null removes a required default.

    Without this report, a template would fail with an unclear message.
    """
    values: Any = None
    for key in reversed(path.split(".")):
        values = {key: values}
    [line] = [
        line.replace("/", ".")
        for line in refusal(on_base(ALL_JOBS, values), major=major).splitlines()
        if line.startswith("- ")
    ]
    assert all(word in line for word in (*path.split("."), "missing" if major == 4 else "required"))
