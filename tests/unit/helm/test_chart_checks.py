"""Tests that each check of this folder accepts a valid document and refuses invalid documents."""

import copy
from typing import Any

import pytest

from tests.crds import crd_directory
from tests.unit.helm import crd, schemas, security, serve_config
from tests.unit.helm.pods import expand
from tests.unit.helm.samples import JOB, document

RULE = {"policy": "DeleteSelf", "condition": {"jobStatus": "FAILED", "ttlSeconds": 60}}
CONTAINER = {
    "name": "a",
    "image": "a:1",
    "securityContext": {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    },
    "resources": {
        "requests": {"cpu": "1", "memory": "1Gi"},
        "limits": {"cpu": "2", "memory": "1Gi"},
    },
    "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
}
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "p"},
    "spec": {
        "enableServiceLinks": False,
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [CONTAINER],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    },
}


def pod(**changes: Any) -> dict[str, Any]:
    """Return a copy of POD in which `changes` replace keys of the container."""
    changed = copy.deepcopy(POD)
    changed["spec"]["containers"][0] |= changes
    return changed


@pytest.mark.parametrize("version", schemas.VERSIONS)
def test_schemas_refuse_unknown_fields_wrong_types_and_unknown_kinds(version: str) -> None:
    assert schemas.faults(POD, version) == []
    assert "'imag' was unexpected" in schemas.faults(pod(imag="a"), version)[0]
    assert "spec.containers[0].image" in schemas.faults(pod(image=7), version)[0]
    assert schemas.faults(
        {"apiVersion": "v1", "kind": "Pot", "metadata": {"name": "p"}}, version
    ) == [f"Pot/p: Kubernetes {version} has no kind Pot in v1"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"bogus": 1}, "'bogus' was unexpected"),
        (
            {"rayClusterSpec.headGroupSpec.template.spec.containers.0.imag": "a"},
            "'imag' was unexpected",
        ),
        ({"backoffLimit": "two"}, "'two' is not of type 'integer'"),
        ({"managedBy": "me"}, "the managedBy field value must be either"),
        (
            {"deletionStrategy": {"deletionRules": [{"policy": "DeleteSelf", "condition": {}}]}},
            "requires either the JobStatus or",
        ),
    ],
)
def test_definitions_refuse(changes: dict[str, Any], sentence: str) -> None:
    assert crd.faults(document("RayJob", {})) == []
    assert sentence in "\n".join(crd.faults(document("RayJob", changes)))


def test_a_custom_resource_without_definition_is_named() -> None:
    doc = {"apiVersion": "example.org/v1", "kind": "Toy", "metadata": {"name": "t"}}
    assert crd.is_custom(doc) and not crd.is_custom(POD)
    assert crd.faults(doc) == ["Toy/t: no definition of Toy in example.org/v1"]


def test_pods_inside_custom_resources_are_found() -> None:
    doc = document("RayJob", {"submitterPodTemplate": {"spec": {"containers": [{"name": "s"}]}}})
    found = expand([doc])
    assert [each["metadata"]["name"] for each in found] == [
        "rayjob-sample-head",
        "rayjob-sample-cpu",
        "rayjob-sample-submitter",
    ]
    assert found[1]["metadata"]["labels"]["ray.io/group"] == "cpu"
    assert found[0]["metadata"]["labels"]["ray.io/cluster"] != "sample", (
        "the name of a job's cluster must have a suffix, as under KubeRay"
    )
    cron = {
        "apiVersion": "ray.io/v1",
        "kind": "RayCronJob",
        "metadata": {"name": "c"},
        "spec": {"schedule": "@daily", "jobTemplate": JOB},
    }
    assert len(expand([cron])) == 2


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"securityContext": {}}, "may gain privileges"),
        ({"securityContext": CONTAINER["securityContext"] | {"runAsUser": 0}}, "may run as root"),
        (
            {
                "securityContext": CONTAINER["securityContext"]
                | {"capabilities": {"drop": ["NET_RAW"]}}
            },
            "keeps capabilities",
        ),
        (
            {
                "securityContext": CONTAINER["securityContext"]
                | {"seccompProfile": {"type": "Unconfined"}}
            },
            "no RuntimeDefault seccomp",
        ),
        ({"volumeMounts": []}, "has a read-only root and no volume at /tmp"),
        (
            {"env": [{"name": "HOME", "value": "/home/awares"}]},
            "has a read-only root and no volume at /home/awares",
        ),
        (
            {"resources": {"requests": {"cpu": "1", "memory": "1Gi"}}},
            "has no request or no limit of memory",
        ),
        (
            {
                "resources": {
                    "requests": {"cpu": "3", "memory": "1Gi"},
                    "limits": {"cpu": "2000m", "memory": "1Gi"},
                }
            },
            "more cpu than its limit",
        ),
        (
            {
                "resources": {
                    "requests": {"cpu": 1, "memory": "1Gi"},
                    "limits": {"cpu": 1, "memory": "1Gi", "nvidia.com/gpu": 1},
                }
            },
            "different request and limit of nvidia.com/gpu",
        ),
    ],
)
def test_security_refuses(changes: dict[str, Any], sentence: str) -> None:
    assert security.faults(POD) == []
    assert sentence in "\n".join(security.faults(pod(**changes)))


def test_security_refuses_host_access_and_memory_volumes_as_large_as_the_limit() -> None:
    changed = copy.deepcopy(POD)
    changed["spec"] |= {"hostNetwork": True, "volumes": [{"name": "h", "hostPath": {"path": "/"}}]}
    changed["spec"]["volumes"].append(
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}}
    )
    text = "\n".join(security.faults(changed))
    assert (
        "sets hostNetwork" in text
        and "volume h is of a kind" in text
        and "volume shm may take all" in text
    )


APPLICATION = {
    "name": "awares",
    "route_prefix": "/",
    "import_path": "awares_platform.serve.app:build",
    "args": {"serve": {"autoscaling": {"min_replicas": 1, "max_replicas": 2}}},
}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"route_prefix": "x"}, "route_prefix 'x' does not begin with a slash"),
        ({"import_path": "awares_platform.serve.app:biuld"}, "names nothing in awares_platform"),
        ({"deployment": []}, "applications[0].deployment: Ray Serve has no such key"),
        (
            {"deployments": [{"name": "awares", "num_replica": 2}]},
            "applications[0].deployments[0].num_replica: Ray Serve has no such key",
        ),
        (
            {"deployments": [{"name": "other"}]},
            "deployment 'other' is none of the application's: awares",
        ),
        (
            {
                "deployments": [
                    {"name": "awares", "autoscaling_config": {"min_replicas": 3, "max_replicas": 2}}
                ]
            },
            "autoscaling_config of awares",
        ),
        ({"args": {"serve": {"prot": 1}}}, "args.serve.prot: Extra inputs are not permitted"),
        (
            {"args": {"serve": {"autoscaling": {"min_replicas": 3, "max_replicas": 2}}}},
            "serve.autoscaling",
        ),
        (
            {"args": {"serve": {"autoscaling": {"max_replica": 2}}}},
            "serve.autoscaling.max_replica: no such key",
        ),
    ],
)
def test_serve_refuses(changes: dict[str, Any], sentence: str) -> None:
    assert serve_config.faults(str({"applications": [APPLICATION]})) == []
    assert sentence in "\n".join(
        serve_config.faults(str({"applications": [APPLICATION | changes]}))
    )


def test_without_definitions_the_tests_skip_and_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWARES_CRDS", "/nonexistent")
    with pytest.raises(pytest.skip.Exception, match="AWARES_CRDS names no directory"):
        crd_directory()
