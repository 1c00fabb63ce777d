"""Tests that valid documents pass KubeRay's rules, and that each rule reports a violation."""

from typing import Any

import pytest

from tests.unit.helm.operator_rules import DEFAULT_GATES, faults
from tests.unit.helm.samples import OUT, document

SELECTED = {
    "rayClusterSpec": OUT,
    "clusterSelector": {"ray.io/cluster": "c"},
    "shutdownAfterJobFinishes": OUT,
    "ttlSecondsAfterFinished": OUT,
}
RULE = {"policy": "DeleteCluster", "condition": {"jobStatus": "FAILED"}}
BY_RULES = {"shutdownAfterJobFinishes": OUT, "ttlSecondsAfterFinished": OUT}
HEAD_ENV = "headGroupSpec.template.spec.containers.0.env"
OPTIONS = "upgradeStrategy.clusterUpgradeOptions"


@pytest.mark.parametrize("kind", ["RayCluster", "RayJob", "RayService"])
def test_green_documents_pass(kind: str) -> None:
    assert faults(document(kind, {})) == []


def test_a_cron_job_passes_behind_its_gate_only() -> None:
    assert faults(document("RayCronJob", {}), DEFAULT_GATES | {"RayCronJob"}) == []
    assert faults(document("RayCronJob", {})) == [
        "RayCronJob/sample: a RayCronJob needs the feature gate RayCronJob"
    ]


@pytest.mark.parametrize(
    ("kind", "limit"), [("RayCluster", 53), ("RayService", 47), ("RayJob", 47), ("RayCronJob", 36)]
)
def test_names_are_short_dns_labels(kind: str, limit: int) -> None:
    gates = DEFAULT_GATES | {"RayCronJob"}
    assert faults(document(kind, {}, "a" * limit), gates) == []
    assert (
        f"the name has {limit + 1} characters, a {kind} may have {limit}"
        in faults(document(kind, {}, "a" * (limit + 1)), gates)[0]
    )
    assert "is no DNS-1035 label" in faults(document(kind, {}, "7b"), gates)[0]


CLUSTER_CASES = [
    ({"headGroupSpec.template": {"spec": {"containers": []}}}, "head has no container"),
    ({"workerGroupSpecs.0.template": {"spec": {}}}, "group cpu has no container"),
    (
        {
            "headGroupSpec.resources": {"CPU": "1"},
            "headGroupSpec.rayStartParams": {"num-cpus": "0"},
        },
        "head sets resources and rayStartParams",
    ),
    (
        {"workerGroupSpecs.0.rayStartParams": {"labels": "a=b"}},
        "group cpu sets rayStartParams.labels",
    ),
    (
        {"enableInTreeAutoscaling": False, "workerGroupSpecs.0.maxReplicas": OUT},
        "needs minReplicas and maxReplicas",
    ),
    ({"workerGroupSpecs.0.minReplicas": 3}, "has minReplicas 3 and maxReplicas 2"),
    ({"workerGroupSpecs.0.minReplicas": -1}, "has minReplicas -1"),
    ({"workerGroupSpecs.0.suspend": True}, "is suspended while autoscaling is on"),
    (
        {HEAD_ENV: [{"name": "RAY_enable_autoscaler_v2", "value": "1"}]},
        "RAY_enable_autoscaler_v2 are both set",
    ),
    (
        {
            "enableInTreeAutoscaling": False,
            HEAD_ENV: [{"name": "RAY_enable_autoscaler_v2", "value": "1"}],
        },
        "RAY_enable_autoscaler_v2 is set while autoscaling is off",
    ),
    ({"headGroupSpec.template.spec.restartPolicy": "Always"}, "head has restartPolicy Always"),
    (
        {
            "autoscalerOptions.version": OUT,
            "workerGroupSpecs.0.template.spec.restartPolicy": "Always",
        },
        "group cpu has restartPolicy Always",
    ),
    ({"autoscalerOptions.idleTimeoutSeconds": -1}, "autoscalerOptions has idleTimeoutSeconds -1"),
    ({"workerGroupSpecs.0.idleTimeoutSeconds": -5}, "group cpu has idleTimeoutSeconds -5"),
    (
        {"autoscalerOptions.env": [{"name": "RAY_CLUSTER_NAME", "value": "x"}]},
        "sets RAY_CLUSTER_NAME, which the operator sets",
    ),
    (
        {HEAD_ENV: [{"name": "RAY_REDIS_ADDRESS", "value": "r:6379"}]},
        "RAY_REDIS_ADDRESS is set without gcsFaultToleranceOptions",
    ),
    (
        {
            "gcsFaultToleranceOptions": {"redisAddress": "r:6379"},
            HEAD_ENV: [{"name": "RAY_REDIS_ADDRESS", "value": "r:6379"}],
        },
        "RAY_REDIS_ADDRESS is set beside gcsFaultToleranceOptions",
    ),
    (
        {
            "gcsFaultToleranceOptions": {"redisAddress": "r:6379"},
            "headGroupSpec.rayStartParams": {"redis-password": "x"},
        },
        "the redis password is set by rayStartParams or env",
    ),
    (
        {HEAD_ENV: [{"name": "REDIS_USERNAME", "value": "x"}]},
        "the redis user name is set by rayStartParams or env",
    ),
    (
        {"upgradeStrategy": {"type": "NewCluster"}},
        "upgradeStrategy is NewCluster: it may be Recreate or None",
    ),
    (
        {"authOptions": {"mode": "token"}, "rayVersion": "2.51.1"},
        "needs rayVersion 2.52 or later, got 2.51.1",
    ),
    (
        {"authOptions": {"mode": "token"}, "rayVersion": OUT},
        "needs rayVersion 2.52 or later, got none",
    ),
    (
        {"authOptions": {"enableK8sTokenAuth": True}, "rayVersion": "2.54.0"},
        "needs rayVersion 2.55 or later, got 2.54.0",
    ),
    (
        {"networkPolicy": {"mode": "DenyAll"}},
        "networkPolicy needs the feature gate RayClusterNetworkPolicy",
    ),
    ({"tlsOptions": {"enabled": True}}, "tlsOptions needs the feature gate RayClusterMTLS"),
    (
        {"historyServerOptions": {"collectorOptions": {}}},
        "historyServerOptions needs the feature gate RayClusterHistoryServer",
    ),
    (
        {"gcsFaultToleranceOptions": {"backend": "rocksdb"}},
        "rocksdb needs the feature gate GCSFaultToleranceEmbeddedStorage",
    ),
    (
        {
            "historyServerOptions": {"collectorOptions": {}},
            "headGroupSpec.template.spec.containers.0.name": "history-server-collector",
        },
        "head has a container named history-server-collector",
    ),
]


@pytest.mark.parametrize(
    ("changes", "sentence"), CLUSTER_CASES, ids=[sentence for _, sentence in CLUSTER_CASES]
)
def test_clusters(changes: dict[str, Any], sentence: str) -> None:
    assert sentence in "\n".join(faults(document("RayCluster", changes)))


def test_clusters_inside_jobs_and_services_are_looked_at() -> None:
    for kind, key in (("RayJob", "rayClusterSpec"), ("RayService", "rayClusterConfig")):
        assert faults(document(kind, {f"{key}.workerGroupSpecs.0.minReplicas": 3})) == [
            f"{kind}/sample: group cpu has minReplicas 3 and maxReplicas 2"
        ]
        assert (
            "may not have an upgradeStrategy"
            in faults(document(kind, {f"{key}.upgradeStrategy": {"type": "Recreate"}}))[0]
        )
        assert (
            "Kubernetes token authentication"
            in faults(document(kind, {f"{key}.authOptions": {"enableK8sTokenAuth": True}}))[0]
        )


@pytest.mark.parametrize("name", ["ray.io/ft-enabled", "ray.io/external-storage-namespace"])
def test_fault_tolerance_by_annotation_and_options(name: str) -> None:
    doc = document(
        "RayCluster",
        {"gcsFaultToleranceOptions": {"redisAddress": "r:6379"}},
        annotations={name: "x"},
    )
    assert faults(doc) == [
        f"RayCluster/sample: annotation {name} and gcsFaultToleranceOptions are both set: "
        "use the latter"
    ]


def test_a_group_is_suspended_only_behind_the_deletion_gate() -> None:
    doc = document(
        "RayCluster", {"enableInTreeAutoscaling": False, "workerGroupSpecs.0.suspend": True}
    )
    assert faults(doc) == []
    assert faults(doc, ()) == [
        "RayCluster/sample: group cpu is suspended without the gate RayJobDeletionPolicy"
    ]


JOB_CASES = [
    ({"rayClusterSpec": OUT}, "neither rayClusterSpec nor clusterSelector is set"),
    (SELECTED | {"clusterSelector": {"other": "c"}}, "clusterSelector names no ray.io/cluster"),
    (SELECTED | {"suspend": True}, "clusterSelector excludes suspend"),
    (SELECTED | {"backoffLimit": 1}, "clusterSelector excludes backoffLimit"),
    (SELECTED | {"submissionMode": "SidecarMode"}, "clusterSelector excludes SidecarMode"),
    (
        SELECTED | {"deletionStrategy": {"deletionRules": [RULE]}},
        "clusterSelector excludes the deletion policy DeleteCluster",
    ),
    ({"suspend": True} | BY_RULES, "suspend needs shutdownAfterJobFinishes"),
    ({"ttlSecondsAfterFinished": -1}, "ttlSecondsAfterFinished is -1"),
    ({"shutdownAfterJobFinishes": False}, "ttlSecondsAfterFinished needs shutdownAfterJobFinishes"),
    (
        {"deletionStrategy": {"deletionRules": [RULE]}},
        "shutdownAfterJobFinishes and deletionRules are both set",
    ),
    (
        BY_RULES | {"deletionStrategy": {"deletionRules": [RULE | {"policy": "DeleteWorkers"}]}},
        "DeleteWorkers excludes autoscaling",
    ),
    (
        BY_RULES | {"deletionStrategy": {"deletionRules": [RULE, RULE]}},
        "2 deletion rules say DeleteCluster on FAILED",
    ),
    ({"activeDeadlineSeconds": 0}, "activeDeadlineSeconds is 0: it must be positive"),
    ({"preRunningDeadlineSeconds": -1}, "preRunningDeadlineSeconds is -1: it must be positive"),
    ({"backoffLimit": -1}, "backoffLimit is -1"),
    (
        {"submissionMode": "InteractiveMode", "backoffLimit": 1},
        "InteractiveMode excludes backoffLimit",
    ),
    (
        {"submissionMode": "SidecarMode", "submitterConfig": {"backoffLimit": 1}},
        "SidecarMode excludes submitterConfig",
    ),
    (
        {
            "submissionMode": "SidecarMode",
            "rayClusterSpec.headGroupSpec.template.spec.restartPolicy": "Always",
        },
        "SidecarMode needs restartPolicy Never of the head, got Always",
    ),
]


@pytest.mark.parametrize(
    ("changes", "sentence"), JOB_CASES, ids=[sentence for _, sentence in JOB_CASES]
)
def test_jobs(changes: dict[str, Any], sentence: str) -> None:
    assert sentence in "\n".join(faults(document("RayJob", changes)))


def test_deletion_rules_are_behind_a_gate() -> None:
    doc = document(
        "RayJob",
        BY_RULES
        | {
            "deletionStrategy": {
                "deletionRules": [RULE, RULE | {"condition": {"jobStatus": "SUCCEEDED"}}]
            }
        },
    )
    assert faults(doc) == []
    assert faults(doc, ()) == [
        "RayJob/sample: deletionStrategy needs the feature gate RayJobDeletionPolicy"
    ]


def test_a_schedule_has_five_fields() -> None:
    doc = document("RayCronJob", {"schedule": "0 3 * *"})
    assert faults(doc, DEFAULT_GATES | {"RayCronJob"}) == [
        "RayCronJob/sample: schedule '0 3 * *' has not five fields"
    ]


SERVICE_CASES = [
    (
        {"rayClusterConfig.headGroupSpec.headService": {"metadata": {"name": "x"}}},
        "headService.metadata.name must not be set",
    ),
    ({"upgradeStrategy.type": "Recreate"}, "upgradeStrategy.type is Recreate"),
    (
        {"rayClusterConfig.enableInTreeAutoscaling": False},
        "incremental upgrade needs enableInTreeAutoscaling",
    ),
    ({OPTIONS: OUT}, "incremental upgrade needs clusterUpgradeOptions"),
    ({f"{OPTIONS}.maxSurgePercent": 101}, "maxSurgePercent is 101: it must be between 0 and 100"),
    ({f"{OPTIONS}.stepSizePercent": OUT}, "stepSizePercent is None"),
    ({f"{OPTIONS}.stepSizePercent": 30}, "stepSizePercent 30 is above maxSurgePercent 20"),
    ({f"{OPTIONS}.intervalSeconds": 0}, "intervalSeconds is 0: it must be positive"),
    ({f"{OPTIONS}.gatewayClassName": ""}, "gatewayClassName is missing"),
]


@pytest.mark.parametrize(
    ("changes", "sentence"), SERVICE_CASES, ids=[sentence for _, sentence in SERVICE_CASES]
)
def test_services(changes: dict[str, Any], sentence: str) -> None:
    assert sentence in "\n".join(faults(document("RayService", changes)))


def test_incremental_upgrade_is_behind_a_gate() -> None:
    assert faults(document("RayService", {}), ()) == [
        "RayService/sample: incremental upgrade needs the feature gate RayServiceIncrementalUpgrade"
    ]


@pytest.mark.parametrize(
    ("text", "taken"),
    [("30m", True), ("600", True), ("1h30m", True), ("0s", False), ("-5m", False), ("soon", False)],
)
def test_the_initialising_timeout_is_a_duration(text: str, taken: bool) -> None:
    doc = document("RayService", {}, annotations={"ray.io/initializing-timeout": text})
    assert bool(faults(doc)) is not taken
