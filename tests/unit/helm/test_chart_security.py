"""Tests that pods obey the restricted Pod Security Standard, and that the chart grants no role.

Also tests that checkov reports only accepted findings.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from ray._private.ray_constants import RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S

from awares_platform.grpo.driving import HAND_BACK_S
from tests.unit.helm import accepted, security
from tests.unit.helm.cases import CASES, Case, on_base
from tests.unit.helm.pods import expand
from tests.unit.helm.references import cluster_specs
from tests.unit.helm.render import Doc, of_kind, render

RBAC = ("Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")
DRAIN = "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"


@pytest.mark.parametrize("case", CASES, ids=str)
def test_pods_obey_the_restricted_standard(case: Case) -> None:
    found = [fault for pod in expand(case.docs()) for fault in security.faults(pod)]
    assert found + [fault for doc in case.docs() for fault in security.autoscaler_faults(doc)] == []


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_chart_grants_nothing(case: Case) -> None:
    """Only the autoscaler uses the Kubernetes API, and KubeRay creates the autoscaler's Role."""
    assert of_kind(case.docs(), *RBAC) == []
    for account in of_kind(case.docs(), "ServiceAccount"):
        assert account["automountServiceAccountToken"] is False


@pytest.mark.parametrize("case", CASES, ids=str)
def test_only_heads_with_the_autoscaler_mount_a_token(case: Case) -> None:
    for doc in case.docs():
        autoscaled = any(spec.get("enableInTreeAutoscaling") for spec in cluster_specs(doc))
        for pod in expand([doc]):
            head = pod["metadata"].get("labels", {}).get("ray.io/node-type") == "head"
            assert pod["spec"]["automountServiceAccountToken"] is (autoscaled and head), pod[
                "metadata"
            ]["name"]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_jobs_bring_their_own_submitter(case: Case) -> None:
    """Restricted namespaces refuse KubeRay's default submitter, which has no security context."""
    for doc in of_kind(case.docs(), "RayJob", "RayCronJob"):
        spec = doc["spec"].get("jobTemplate", doc["spec"])
        assert (
            spec.get("submissionMode", "K8sJobMode") == "K8sJobMode"
            and spec["submitterPodTemplate"]
        )


def drains(docs: Sequence[Doc]) -> list[tuple[str, float, int]]:
    """Return the role, the drain time and the grace period of each Ray pod, in seconds.

    After SIGTERM, `ray start` drains its node for the drain time, and then ends Ray's processes.
    """
    found = []
    for pod in expand(docs):
        if role := pod["metadata"].get("labels", {}).get("ray.io/node-type"):
            env = {one["name"]: one.get("value") for one in pod["spec"]["containers"][0]["env"]}
            drain = float(env.get(DRAIN, RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S))
            found.append((role, drain, pod["spec"]["terminationGracePeriodSeconds"]))
    return found


@pytest.mark.parametrize("case", CASES, ids=str)
def test_ray_pods_have_time_to_drain(case: Case) -> None:
    for _, drain, grace in drains(case.docs()):
        assert drain > HAND_BACK_S and grace >= drain + 60


def test_the_drain_grows_with_the_groups_value_and_the_endpoints_shutdown_time() -> None:
    """Check that the larger of both values is the drain time of the endpoint's workers."""
    values = {
        "setup": {"serve": {"shutdown_timeout_s": 299.5}},
        "cluster": {"groups": {"rollout": {"drainSeconds": 90}}},
        "jobs": {"grpo": {"enabled": True}},
    }
    docs = render(on_base(values))
    endpoint, job = drains(of_kind(docs, "RayService")), drains(of_kind(docs, "RayJob"))
    assert {one for one in endpoint if one[0] == "worker"} == {("worker", 300, 360)}
    assert {one for one in job if one[0] == "worker"} == {("worker", 90, 150), ("worker", 30, 90)}


PLAIN = ("Pod", "Service", "ServiceAccount", "NetworkPolicy", "Ingress")
BAD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "bad", "namespace": "n"},
    "spec": {
        "hostNetwork": True,
        "containers": [{"name": "a", "image": "a", "securityContext": {"privileged": True}}],
    },
}


def test_checkov_finds_only_accepted_faults(tmp_path: Path) -> None:
    """Check that checkov reports only accepted findings for the chart's documents.

    Checkov must also report an insecure pod that the test adds, which proves that checkov works.
    """
    everything = [
        doc
        for case in CASES
        for doc in (*expand(case.docs()), *case.docs())
        if doc["kind"] in PLAIN
    ]
    distinct = {json.dumps(doc, sort_keys=True): doc for doc in everything}
    found = accepted.checkov([*distinct.values(), BAD], tmp_path)
    bad = {
        finding
        for finding, names in found.items()
        if any(name.endswith("Pod.n.bad") for name in names)
    }
    assert {"CKV_K8S_16", "CKV_K8S_19", "CKV_K8S_20", "CKV_K8S_37"} <= bad
    ours = {
        finding: [name for name in names if not name.endswith("Pod.n.bad")]
        for finding, names in found.items()
    }
    assert {
        finding: names
        for finding, names in ours.items()
        if names and finding not in accepted.ACCEPTED
    } == {}
    assert [finding for finding in accepted.ACCEPTED if not ours.get(finding)] == [], (
        "checkov no longer reports these accepted findings: remove them from ACCEPTED"
    )
