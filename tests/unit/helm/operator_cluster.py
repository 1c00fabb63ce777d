"""Holds the rules that KubeRay's operator has for the spec of a Ray cluster (RayClusterSpec).

A RayCluster, a RayJob or a RayService contains such a spec.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

Spec = dict[str, Any]
RESOURCE_PARAMS = {"num-cpus", "num-gpus", "memory", "resources"}
OPERATOR_SET_ENV = {
    "RAY_CLUSTER_NAME",
    "RAY_CLUSTER_NAMESPACE",
    "RAY_HEAD_POD_NAME",
    "KUBERAY_CRD_VER",
}
GATED = {
    "networkPolicy": "RayClusterNetworkPolicy",
    "tlsOptions": "RayClusterMTLS",
    "historyServerOptions": "RayClusterHistoryServer",
}
COLLECTOR = "history-server-collector"


@dataclass(frozen=True, slots=True)
class Cluster:
    """A RayClusterSpec, and facts about the resource that contains this spec.

    Example:
        Cluster({"headGroupSpec": {...}, "workerGroupSpecs": []}, {}, "RayJob")
    """

    spec: Spec
    annotations: dict[str, str]
    owner: str
    """The kind of the resource: RayCluster, RayJob or RayService."""

    @property
    def head(self) -> Spec:
        return self.spec["headGroupSpec"]

    @property
    def workers(self) -> list[Spec]:
        return self.spec.get("workerGroupSpecs") or []

    @property
    def groups(self) -> list[tuple[str, Spec]]:
        """The head group and the worker groups, as pairs (name in messages, group spec)."""
        return [
            ("head", self.head),
            *((f"group {group['groupName']}", group) for group in self.workers),
        ]

    @property
    def autoscaling(self) -> bool:
        return bool(self.spec.get("enableInTreeAutoscaling"))

    @property
    def head_env(self) -> dict[str, Any]:
        containers = _pod(self.head).get("containers") or [{}]
        return {entry["name"]: entry.get("value") for entry in containers[0].get("env") or ()}

    @property
    def autoscaler_version(self) -> str:
        """The autoscaler's version. The default is v2 from Ray 2.47 on, and v1 before Ray 2.47."""
        chosen = (self.spec.get("autoscalerOptions") or {}).get("version")
        return chosen or ("v2" if version(self.spec.get("rayVersion") or "") >= (2, 47) else "v1")


def version(text: str) -> tuple[int, ...]:
    """Return the numbers of a version, or an empty tuple if the text is not a version.

    Example:
        version("2.60.0")  # (2, 60, 0)
    """
    return (
        tuple(int(part) for part in text.split(".")) if re.fullmatch(r"\d+(\.\d+)*", text) else ()
    )


def _pod(group: Spec) -> Spec:
    return (group.get("template") or {}).get("spec") or {}


def has_containers(cluster: Cluster, _: Collection[str]) -> Iterator[str]:
    for name, group in cluster.groups:
        if not _pod(group).get("containers"):
            yield f"{name} has no container"


def resources_are_given_once(cluster: Cluster, _: Collection[str]) -> Iterator[str]:
    for name, group in cluster.groups:
        both = RESOURCE_PARAMS & (group.get("rayStartParams") or {}).keys()
        if both and group.get("resources"):
            yield f"{name} sets resources and rayStartParams {sorted(both)}: use one"


def labels_are_no_start_parameter(cluster: Cluster, _: Collection[str]) -> Iterator[str]:
    for name, group in cluster.groups:
        if "labels" in (group.get("rayStartParams") or {}):
            yield f"{name} sets rayStartParams.labels: use labels of the group"


def fixed_size_has_bounds(cluster: Cluster, _: Collection[str]) -> Iterator[str]:
    for group in cluster.workers:
        if not cluster.autoscaling and not {"minReplicas", "maxReplicas"} <= group.keys():
            yield (
                f"group {group['groupName']} needs minReplicas and maxReplicas while autoscaling "
                "is off"
            )


def bounds_are_in_order(cluster: Cluster, _: Collection[str]) -> Iterator[str]:
    for group in cluster.workers:
        low, high = group.get("minReplicas", 0), group.get("maxReplicas", 2**31 - 1)
        if not 0 <= low <= high:
            yield f"group {group['groupName']} has minReplicas {low} and maxReplicas {high}"


def suspended_groups_are_allowed(cluster: Cluster, gates: Collection[str]) -> Iterator[str]:
    for group in cluster.workers:
        if group.get("suspend") and "RayJobDeletionPolicy" not in gates:
            yield f"group {group['groupName']} is suspended without the gate RayJobDeletionPolicy"
        if group.get("suspend") and cluster.autoscaling:
            yield f"group {group['groupName']} is suspended while autoscaling is on"


def autoscaler_version_is_given_once(cluster: Cluster, _: Collection[str]) -> Iterator[str]:
    switch = cluster.head_env.get("RAY_enable_autoscaler_v2")
    if switch is None:
        return
    if not cluster.autoscaling and switch in ("1", "true"):
        yield "RAY_enable_autoscaler_v2 is set while autoscaling is off"
    if cluster.autoscaling and (cluster.spec.get("autoscalerOptions") or {}).get("version"):
        yield "autoscalerOptions.version and RAY_enable_autoscaler_v2 are both set: use the former"


def autoscaler_v2_never_restarts(cluster: Cluster, _: Collection[str]) -> Iterator[str]:
    if not cluster.autoscaling or cluster.autoscaler_version != "v2":
        return
    for name, group in cluster.groups:
        policy = _pod(group).get("restartPolicy") or "Never"
        if policy != "Never":
            yield f"{name} has restartPolicy {policy}: autoscaler v2 needs Never or none"


def idle_timeouts_are_not_negative(cluster: Cluster, _: Collection[str]) -> Iterator[str]:
    options = cluster.spec.get("autoscalerOptions") or {}
    for name, part in [
        ("autoscalerOptions", options),
        *((f"group {group['groupName']}", group) for group in cluster.workers),
    ]:
        if part.get("idleTimeoutSeconds", 0) < 0:
            yield f"{name} has idleTimeoutSeconds {part['idleTimeoutSeconds']}"


def autoscaler_env_is_not_the_operators(cluster: Cluster, _: Collection[str]) -> Iterator[str]:
    for entry in (cluster.spec.get("autoscalerOptions") or {}).get("env") or ():
        if entry["name"] in OPERATOR_SET_ENV:
            yield f"autoscalerOptions.env sets {entry['name']}, which the operator sets"


def fault_tolerance_is_given_once(cluster: Cluster, _: Collection[str]) -> Iterator[str]:
    options = cluster.spec.get("gcsFaultToleranceOptions")
    for name in ("ray.io/ft-enabled", "ray.io/external-storage-namespace"):
        if options and cluster.annotations.get(name):
            yield f"annotation {name} and gcsFaultToleranceOptions are both set: use the latter"
    if (
        not options
        and "RAY_REDIS_ADDRESS" in cluster.head_env
        and not cluster.annotations.get("ray.io/ft-enabled")
    ):
        yield "RAY_REDIS_ADDRESS is set without gcsFaultToleranceOptions"


def redis_is_set_by_options(cluster: Cluster, _: Collection[str]) -> Iterator[str]:
    params, env = cluster.head.get("rayStartParams") or {}, cluster.head_env
    if "redis-username" in params or "REDIS_USERNAME" in env:
        yield (
            "the redis user name is set by rayStartParams or env: "
            "use gcsFaultToleranceOptions.redisUsername"
        )
    if not cluster.spec.get("gcsFaultToleranceOptions"):
        return
    if "redis-password" in params or "REDIS_PASSWORD" in env:
        yield (
            "the redis password is set by rayStartParams or env: "
            "use gcsFaultToleranceOptions.redisPassword"
        )
    if "RAY_REDIS_ADDRESS" in env:
        yield "RAY_REDIS_ADDRESS is set beside gcsFaultToleranceOptions: use redisAddress"


def upgrade_strategy_is_the_clusters_own(cluster: Cluster, _: Collection[str]) -> Iterator[str]:
    strategy = (cluster.spec.get("upgradeStrategy") or {}).get("type")
    if strategy is None:
        return
    if strategy not in ("Recreate", "None"):
        yield f"the cluster's upgradeStrategy is {strategy}: it may be Recreate or None"
    if cluster.owner != "RayCluster":
        yield f"the cluster of a {cluster.owner} may not have an upgradeStrategy"


def auth_fits_the_version(cluster: Cluster, _: Collection[str]) -> Iterator[str]:
    options, release = cluster.spec.get("authOptions") or {}, cluster.spec.get("rayVersion") or ""
    if options.get("mode") == "token" and version(release) < (2, 52):
        yield f"token authentication needs rayVersion 2.52 or later, got {release or 'none'}"
    if options.get("enableK8sTokenAuth") and version(release) < (2, 55):
        named = release or "none"
        yield f"Kubernetes token authentication needs rayVersion 2.55 or later, got {named}"
    if options.get("enableK8sTokenAuth") and cluster.owner != "RayCluster":
        yield f"a {cluster.owner} does not support Kubernetes token authentication"


def gated_fields_need_their_gate(cluster: Cluster, gates: Collection[str]) -> Iterator[str]:
    for field, gate in GATED.items():
        if cluster.spec.get(field) and gate not in gates:
            yield f"{field} needs the feature gate {gate}"
    backend = (cluster.spec.get("gcsFaultToleranceOptions") or {}).get("backend")
    if backend == "rocksdb" and "GCSFaultToleranceEmbeddedStorage" not in gates:
        yield "backend rocksdb needs the feature gate GCSFaultToleranceEmbeddedStorage"


def history_container_name_is_reserved(cluster: Cluster, _: Collection[str]) -> Iterator[str]:
    if not cluster.spec.get("historyServerOptions"):
        return
    for name, group in cluster.groups:
        if COLLECTOR in [container["name"] for container in _pod(group).get("containers") or ()]:
            yield f"{name} has a container named {COLLECTOR}, which the operator adds"


RULES = (
    has_containers,
    resources_are_given_once,
    labels_are_no_start_parameter,
    fixed_size_has_bounds,
    bounds_are_in_order,
    suspended_groups_are_allowed,
    autoscaler_version_is_given_once,
    autoscaler_v2_never_restarts,
    idle_timeouts_are_not_negative,
    autoscaler_env_is_not_the_operators,
    fault_tolerance_is_given_once,
    redis_is_set_by_options,
    upgrade_strategy_is_the_clusters_own,
    auth_fits_the_version,
    gated_fields_need_their_gate,
    history_container_name_is_reserved,
)
