"""Tests that pods obey the restricted Pod Security Standard, and that the chart grants no role.

Also tests that checkov reports only accepted findings.
"""

import json
from pathlib import Path

import pytest

from tests.unit.helm import accepted, security
from tests.unit.helm.cases import CASES, Case
from tests.unit.helm.pods import expand
from tests.unit.helm.references import cluster_specs
from tests.unit.helm.render import of_kind

RBAC = ("Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")
DRAIN_S = 30


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
    """KubeRay's default submitter pod has no security context. Restricted namespaces refuse it."""
    for doc in of_kind(case.docs(), "RayJob", "RayCronJob"):
        spec = doc["spec"].get("jobTemplate", doc["spec"])
        assert (
            spec.get("submissionMode", "K8sJobMode") == "K8sJobMode"
            and spec["submitterPodTemplate"]
        )


@pytest.mark.parametrize("case", CASES, ids=str)
def test_ray_pods_have_time_to_drain(case: Case) -> None:
    for doc in case.docs():
        if cluster_specs(doc):
            pods = [pod for pod in expand([doc]) if "ray.io/node-type" in pod["metadata"]["labels"]]
            assert min(pod["spec"]["terminationGracePeriodSeconds"] for pod in pods) > DRAIN_S


def test_the_drain_grows_with_the_endpoints_shutdown_time() -> None:
    from tests.unit.helm.cases import on_base
    from tests.unit.helm.render import render

    docs = render(on_base({"setup": {"serve": {"shutdown_timeout_s": 300}}}))
    pods = expand(of_kind(docs, "RayService"))
    assert min(pod["spec"]["terminationGracePeriodSeconds"] for pod in pods) >= 300 + DRAIN_S


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

    It must also report an insecure pod that the test adds, which proves that checkov works.
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
