"""Tests the values files in helm/awares-train/examples, with Helm 3 and with Helm 4.

The values below `pods` must reach the pods of Ray, of submitters and of Helm tests.
"""

import tomllib
from typing import Any

import pytest
import yaml

from awares_platform.config.grpo import GrpoConfig
from awares_platform.grpo.sizing import least_actors
from tests.unit.helm import crd, operator_rules, schemas, security
from tests.unit.helm.flows import Peer, allowed
from tests.unit.helm.pods import containers, expand
from tests.unit.helm.render import CHART, Doc, of_kind, refusal, render
from tests.unit.helm.security import amount

EXAMPLES = sorted(path.stem for path in (CHART / "examples").glob("*.yaml"))


def example(name: str, major: int = 4, **changes: Any) -> tuple[Doc, ...]:
    """Render the preset `two-pools` with an example's values. `changes` override these values."""
    values = yaml.safe_load((CHART / "examples" / f"{name}.yaml").read_text())
    return render(values | changes, "two-pools", major)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_renders_valid_objects(name: str) -> None:
    docs = example(name)
    assert docs == example(name, major=3)
    found = [
        fault
        for doc in docs
        for fault in (
            crd.faults(doc) if crd.is_custom(doc) else schemas.faults(doc, schemas.VERSIONS[0])
        )
    ]
    found += [fault for doc in docs for fault in operator_rules.faults(doc)]
    found += [
        fault
        for pod in expand(docs)
        for fault in (
            *schemas.faults(pod, schemas.VERSIONS[0]),
            *(() if name == "redis-tls-rdma" else security.faults(pod)),
        )
    ]
    assert found == []


def test_certificates_reach_every_pod() -> None:
    for pod in expand(example("minio-private-ca")):
        volume = {"name": "ca", "configMap": {"name": "company-ca"}}
        assert volume in pod["spec"]["volumes"]
        (container,) = pod["spec"]["containers"]
        env = {one["name"]: one.get("value") for one in container["env"]}
        for name in ("AWS_CA_BUNDLE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
            assert env[name] == "/etc/awares-ca/ca.crt"
        assert "/etc/awares-ca" in [one["mountPath"] for one in container["volumeMounts"]]


def test_volumes_proxies_and_variables_reach_every_pod() -> None:
    for pod in expand(example("air-gap")):
        (container,) = pod["spec"]["containers"]
        env = {one["name"]: one.get("value") for one in container["env"]}
        assert env["HF_HUB_OFFLINE"] == "1"
        assert env["https_proxy"] == env["HTTPS_PROXY"] == "http://proxy.example.com:3128"
        assert env["NO_PROXY"].startswith(".svc")
        assert "/models" in [one["mountPath"] for one in container["volumeMounts"]]
        assert "models" in [one["name"] for one in pod["spec"]["volumes"]]


def test_labels_scheduler_and_first_containers_reach_every_pod() -> None:
    labels = {"team": "vision", "cost-centre": "4711"}
    docs = example("kyverno-labels")
    for one in (*docs, *expand(docs)):
        assert labels.items() <= one["metadata"]["labels"].items(), one["metadata"]["name"]
    for pod in expand(docs):
        assert pod["spec"]["schedulerName"] == "company-scheduler"
        assert pod["spec"]["runtimeClassName"] == "nvidia"
        assert [one["name"] for one in pod["spec"]["initContainers"]] == ["check"]
        ours = [one for one in containers(pod) if one["name"] != "check"]
        assert [one["envFrom"] for one in ours] == [
            [{"configMapRef": {"name": "company-settings"}}]
        ]


def test_openshift_chooses_the_users_and_its_dns_answers() -> None:
    docs = example("openshift")
    dns = Peer("DNS", {"dns.operator.openshift.io/daemonset-dns": "default"}, "openshift-dns")
    for pod in expand(docs):
        context = pod["spec"]["securityContext"]
        assert not {"runAsUser", "runAsGroup", "fsGroup"} & context.keys()
        assert context["runAsNonRoot"] is True
        assert allowed(docs, Peer.of(pod), dns, 5353, "UDP")


@pytest.mark.parametrize("name", ["eks-irsa", "eks-pod-identity"])
def test_an_identity_of_aws_needs_no_secret(name: str) -> None:
    docs = example(name)
    assert "AWS_SECRET_ACCESS_KEY" not in yaml.safe_dump_all(docs)
    agent = Peer("the agent of Pod Identity", namespace="", address="169.254.170.23")
    for pod in expand(docs):
        if pod["metadata"]["labels"]["app.kubernetes.io/component"] != "submitter":
            assert allowed(docs, Peer.of(pod), agent, 80), pod["metadata"]["name"]


def test_an_identity_of_google_without_keys_is_refused() -> None:
    values = yaml.safe_load((CHART / "examples" / "gke.yaml").read_text())
    values["store"]["existingSecret"] = None
    annotations = {"iam.gke.io/gcp-service-account": "runs@project.iam.gserviceaccount.com"}
    values["serviceAccounts"] = {"runs": {"annotations": annotations}}
    said = refusal(values, "two-pools")
    assert "iam.gke.io/gcp-service-account gives no keys for S3" in said
    assert "name a Secret with keys of an S3-compatible store" in said


def test_submitters_run_under_the_charts_account() -> None:
    (job,) = of_kind(example("eks-irsa"), "RayJob")
    account = job["spec"]["submitterPodTemplate"]["spec"]["serviceAccountName"]
    assert account in [
        doc["metadata"]["name"] for doc in of_kind(example("eks-irsa"), "ServiceAccount")
    ]


def test_a_group_has_rdma_the_nodes_network_and_variables_of_its_own() -> None:
    (job,) = of_kind(example("redis-tls-rdma"), "RayJob")
    spec = job["spec"]["rayClusterSpec"]
    groups = {one["groupName"]: one["template"] for one in spec["workerGroupSpecs"]}
    (learner,) = groups["learner"]["spec"]["containers"]
    (rollout,) = groups["rollout"]["spec"]["containers"]
    assert learner["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["IPC_LOCK"]}
    assert rollout["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert groups["learner"]["spec"]["hostNetwork"] is True
    assert {"name": "NCCL_IB_HCA", "value": "mlx5"} in learner["env"]
    assert groups["learner"]["metadata"]["annotations"]["k8s.v1.cni.cncf.io/networks"] == "rdma"
    options = spec["gcsFaultToleranceOptions"]
    assert options["redisAddress"] == "rediss://redis.example.com:6379"
    assert options["redisUsername"] == {"value": "awares"}
    assert amount(learner["resources"]["limits"]["nvidia.com/gpu"]) == 4


def test_extra_egress_reaches_test_pods() -> None:
    judge = Peer("a judge", namespace="", address="192.0.2.7")
    egress = [{"to": [{"ipBlock": {"cidr": "192.0.2.0/24"}}], "ports": [{"port": 8443}]}]
    docs = example("eks-irsa", networkPolicy={"extraEgress": egress})
    tests = [pod for pod in expand(docs) if pod["metadata"]["name"].startswith("awares-awares")]
    assert tests and all(allowed(docs, Peer.of(pod), judge, 8443) for pod in tests)


@pytest.mark.parametrize("upgrade", ["None", "Recreate"])
def test_a_shared_cluster_is_replaced_whole_or_not_at_all(upgrade: str) -> None:
    docs = example("eks-irsa", cluster={"enabled": True, "upgrade": upgrade})
    (cluster,) = of_kind(docs, "RayCluster")
    assert cluster["spec"]["upgradeStrategy"] == {"type": upgrade}
    assert crd.faults(cluster) == [*operator_rules.faults(cluster)] == []
    (job,) = of_kind(docs, "RayJob")
    assert "upgradeStrategy" not in job["spec"]["rayClusterSpec"]


def test_an_ambient_mesh_carries_the_traffic_of_every_pod() -> None:
    proxy = Peer("a pod of the mesh", namespace="elsewhere")
    for name, passes in (("istio-ambient", True), ("openshift", False)):
        docs = example(name)
        for pod in expand(docs):
            peer = Peer.of(pod)
            assert allowed(docs, proxy, peer, 15008) is passes
            assert allowed(docs, peer, proxy, 15008) is passes


def test_karpenter_and_the_cluster_autoscaler_leave_ray_pods_alone() -> None:
    """Karpenter may still evict a pod on a spot node, because the cloud may take the node back."""
    for pod in expand(example("eks-irsa")):
        if "ray.io/node-type" in pod["metadata"]["labels"]:
            annotations = pod["metadata"]["annotations"]
            spot = pod["spec"]["nodeSelector"].get("karpenter.sh/capacity-type") == "spot"
            assert annotations.get("karpenter.sh/do-not-disrupt") == (None if spot else "true")
            assert annotations["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false"


def test_a_run_and_its_rollout_workers_grow_and_shrink_between_the_same_bounds() -> None:
    docs = example("elastic")
    (job,) = of_kind(docs, "RayJob")
    spec = job["spec"]["rayClusterSpec"]
    assert spec["enableInTreeAutoscaling"] is True
    assert spec["autoscalerOptions"]["version"] == "v2"
    (group,) = [one for one in spec["workerGroupSpecs"] if one["groupName"] == "rollout"]
    (setup,) = [doc for doc in of_kind(docs, "ConfigMap") if "setup.toml" in doc["data"]]
    grpo = GrpoConfig.model_validate(tomllib.loads(setup["data"]["setup.toml"])["grpo"])
    assert (group["minReplicas"], group["maxReplicas"]) == (0, grpo.rollout_actors)
    assert least_actors(grpo) == 1 and grpo.rollout_selector.items() <= group["labels"].items()
