"""Tests the chart's values for worker groups, model caches, PodDisruptionBudgets and routes."""

from typing import Any

import pytest
import yaml

from tests.unit.helm import crd
from tests.unit.helm.cases import CASES, Case, on_base
from tests.unit.helm.pods import containers, expand
from tests.unit.helm.render import CHART, Doc, of_kind, refusal, render
from tests.unit.helm.selectors import selected

GRPO = {"jobs": {"grpo": {"enabled": True}}}


def workers(name: str, *changes: dict[str, Any]) -> tuple[Doc, Doc]:
    """Return a group of the shared RayCluster, and the spec of the group's pods."""
    (cluster,) = of_kind(render(on_base(*changes)), "RayCluster")
    [group] = [one for one in cluster["spec"]["workerGroupSpecs"] if one["groupName"] == name]
    return group, group["template"]["spec"]


def learner(**values: Any) -> dict[str, Any]:
    return {"cluster": {"groups": {"learner": values}}}


PLACED: dict[str, Any] = {
    "affinity": {"podAffinity": {}},
    "runtimeClassName": "nvidia",
    "schedulerName": "gpu-scheduler",
}


def test_the_placement_of_a_group_replaces_that_of_all_pods() -> None:
    common = {"affinity": {"nodeAffinity": {}}, "schedulerName": "other"}
    changes = ({"pods": common}, learner(**PLACED))
    _, placed = workers("learner", *changes)
    _, usual = workers("rollout", *changes)
    assert {key: placed[key] for key in PLACED} == PLACED
    assert {key: usual.get(key) for key in PLACED} == {**common, "runtimeClassName": None}


def test_the_security_context_of_a_group_changes_only_its_own_fields() -> None:
    """Check that the group's fields replace the chart's, even if a value is false."""
    own = {"readOnlyRootFilesystem": False, "capabilities": {"add": ["SYS_NICE"]}}
    before, after = (workers("learner", *one)[1] for one in ((), (learner(securityContext=own),)))
    [old], [new] = (pod["containers"] for pod in (before, after))
    expected = {**old["securityContext"], "readOnlyRootFilesystem": False}
    expected["capabilities"] = {"drop": ["ALL"], "add": ["SYS_NICE"]}
    assert new["securityContext"] == expected
    assert {**new, "securityContext": None} == {**old, "securityContext": None}


def test_a_group_of_several_hosts_counts_all_its_pods() -> None:
    hosts = learner(numOfHosts=2, maxReplicas=2, gpus=4)
    group, _ = workers("learner", hosts)
    assert (group["numOfHosts"], group["maxReplicas"]) == (2, 2)
    assert "numOfHosts" not in workers("rollout", hosts)[0]
    learners = {
        "learner_gpus": 4,
        "learner_workers": 4,
        "learner_selector": {"awares/group": "learner"},
    }
    needs = {"setup": {"grpo": {**learners, "rollout_selector": {"awares/group": "rollout"}}}}
    docs = render(on_base(GRPO, hosts, needs))
    assert [fault for doc in docs if crd.is_custom(doc) for fault in crd.faults(doc)] == []
    one_host = refusal(on_base(GRPO, learner(maxReplicas=2, gpus=4), needs))
    assert "jobs.grpo needs 16 GPUs at once" in one_host


@pytest.mark.parametrize("case", CASES, ids=str)
def test_no_learner_can_be_evicted(case: Case) -> None:
    """Check that a learner's PodDisruptionBudget requires the group's largest number of pods.

    Kubernetes therefore evicts no pod of the group.
    """
    docs = case.docs()
    for pod in expand(docs):
        labels = pod["metadata"]["labels"]
        if labels.get("ray.io/group") != "learner":
            continue
        budgets = of_kind(docs, "PodDisruptionBudget")
        [budget] = [one for one in budgets if selected([pod], one["spec"]["selector"])]
        most = max(
            group["maxReplicas"] * group.get("numOfHosts", 1)
            for doc in docs
            for spec in (doc.get("spec") or {},)
            for inner in (spec, spec.get("rayClusterSpec") or {}, spec.get("jobTemplate") or {})
            for group in (inner.get("rayClusterSpec") or inner).get("workerGroupSpecs") or ()
            if group["groupName"] == "learner"
        )
        assert budget["spec"]["minAvailable"] == most


@pytest.mark.parametrize(("least", "kept"), [(1, 4), (2, 7), (0, 1)])
def test_an_endpoint_of_one_replica_loses_none_of_its_hosts(least: int, kept: int) -> None:
    group = {"replicas": least, "minReplicas": least, "maxReplicas": 2, "numOfHosts": 4}
    docs = render(on_base({"endpoint": {"enabled": True, "groups": {"replica": group}}}))
    budgets = of_kind(docs, "PodDisruptionBudget")
    [budget] = [one for one in budgets if one["metadata"]["name"].endswith("-endpoint")]
    assert budget["spec"]["minAvailable"] == kept


@pytest.mark.parametrize(
    ("usual", "kept"), [(None, None), (0, 1), (1, 1), (3, 2)], ids=["spot only", "0", "1", "3"]
)
def test_replicas_on_spot_nodes_may_be_evicted_and_do_not_count(
    usual: int | None, kept: int | None
) -> None:
    """The eviction is the only notice of a replica whose spot node the cloud takes back."""
    size, two = {"cpu": "4", "memory": "16Gi"}, {"replicas": 2, "minReplicas": 2, "maxReplicas": 4}
    spot = {"gpus": 1, "spot": {"enabled": True}, "nodeSelector": {"spot": "true"}}
    groups: dict[str, Any] = {
        "spot": {**spot, **two, "resources": {"requests": size, "limits": size}},
        "replica": {"enabled": False},
    }
    if usual is not None:
        groups["replica"] = {"replicas": usual, "minReplicas": usual, "maxReplicas": 4}
    docs = render(on_base({"endpoint": {"enabled": True, "groups": groups}}))
    budgets = [one["spec"] for one in of_kind(docs, "PodDisruptionBudget")]
    least = {
        pod["metadata"]["labels"]["ray.io/group"]: [
            one["minAvailable"] for one in budgets if selected([pod], one["selector"])
        ]
        for pod in expand(docs)
        if pod["metadata"]["labels"].get("ray.io/node-type") == "worker"
        and pod["metadata"]["labels"]["app.kubernetes.io/component"] == "endpoint"
    }
    assert least == {"spot": []} | ({} if kept is None else {"replica": [kept]})


@pytest.mark.parametrize(
    ("cache", "source"),
    [
        ({"claim": "models"}, {"persistentVolumeClaim": {"claimName": "models"}}),
        ({"hostPath": "/mnt/models"}, {"hostPath": {"path": "/mnt/models", "type": "Directory"}}),
    ],
)
def test_ray_pods_keep_models_on_the_volume_of_the_cache(
    cache: dict[str, str], source: dict[str, Any]
) -> None:
    for pod in expand(render(on_base(GRPO, {"modelCache": cache}))):
        ray = "ray.io/node-type" in pod["metadata"]["labels"]
        assert ({"name": "models", **source} in pod["spec"]["volumes"]) is ray
        for container in containers(pod):
            env = {one["name"]: one.get("value") for one in container["env"]}
            mounts = {one["name"]: one["mountPath"] for one in container["volumeMounts"]}
            where = "/var/cache/awares" if ray and container["name"] != "autoscaler" else None
            assert mounts.get("models") == env.get("AWARES_CACHE") == where
            assert env.get("HF_HOME") == (where and f"{where}/huggingface")


def test_a_route_has_the_time_limits_of_its_values() -> None:
    values = yaml.safe_load((CHART / "examples" / "multi-host.yaml").read_text())
    (route,) = of_kind(render(values, "two-pools"), "HTTPRoute")
    [rule] = route["spec"]["rules"]
    assert rule["timeouts"] == {"request": "300s", "backendRequest": "300s"}
    assert crd.faults(route) == []
    values["endpoint"]["httpRoute"]["timeouts"] = {"request": "5 minutes"}
    assert "timeouts" in refusal(values, "two-pools")
