"""Holds the rules that KubeRay's operator has for the spec of a RayJob, and for a RayCronJob."""

from collections import Counter
from collections.abc import Collection, Iterator
from itertools import pairwise
from typing import Any

Spec = dict[str, Any]
_DEPLOYED = "jobDeploymentStatus"


def _rules(spec: Spec) -> list[Spec]:
    return (spec.get("deletionStrategy") or {}).get("deletionRules") or []


def _autoscales(spec: Spec) -> bool:
    return bool((spec.get("rayClusterSpec") or {}).get("enableInTreeAutoscaling"))


def runs_somewhere(spec: Spec, _: Collection[str]) -> Iterator[str]:
    if not spec.get("rayClusterSpec") and not spec.get("clusterSelector"):
        yield "neither rayClusterSpec nor clusterSelector is set"
    if spec.get("clusterSelector") and not spec["clusterSelector"].get("ray.io/cluster"):
        yield "clusterSelector names no ray.io/cluster"


def a_selected_cluster_is_not_the_jobs(spec: Spec, _: Collection[str]) -> Iterator[str]:
    if not spec.get("clusterSelector"):
        return
    for key in ("suspend", "backoffLimit"):
        if spec.get(key):
            yield f"clusterSelector excludes {key}"
    if spec.get("submissionMode") == "SidecarMode":
        yield "clusterSelector excludes SidecarMode"
    for rule in _rules(spec):
        if rule["policy"] in ("DeleteCluster", "DeleteWorkers"):
            yield f"clusterSelector excludes the deletion policy {rule['policy']}"


def suspension_shuts_down(spec: Spec, _: Collection[str]) -> Iterator[str]:
    if spec.get("suspend") and not spec.get("shutdownAfterJobFinishes"):
        yield "suspend needs shutdownAfterJobFinishes"


def time_to_live_shuts_down(spec: Spec, _: Collection[str]) -> Iterator[str]:
    seconds = spec.get("ttlSecondsAfterFinished", 0)
    if seconds < 0:
        yield f"ttlSecondsAfterFinished is {seconds}"
    if seconds > 0 and not spec.get("shutdownAfterJobFinishes"):
        yield "ttlSecondsAfterFinished needs shutdownAfterJobFinishes"


def one_way_of_deletion(spec: Spec, _: Collection[str]) -> Iterator[str]:
    if spec.get("shutdownAfterJobFinishes") and _rules(spec):
        yield "shutdownAfterJobFinishes and deletionRules are both set: use one"


def deletion_rules_are_allowed(spec: Spec, gates: Collection[str]) -> Iterator[str]:
    if spec.get("deletionStrategy") and "RayJobDeletionPolicy" not in gates:
        yield "deletionStrategy needs the feature gate RayJobDeletionPolicy"
    if _autoscales(spec) and "DeleteWorkers" in [rule["policy"] for rule in _rules(spec)]:
        yield "DeleteWorkers excludes autoscaling"


def deletion_rules_are_distinct(spec: Spec, _: Collection[str]) -> Iterator[str]:
    keys = [
        (
            rule["policy"],
            *sorted(
                rule["condition"].get(key) or "" for key in ("jobStatus", "jobDeploymentStatus")
            ),
        )
        for rule in _rules(spec)
    ]
    for key, count in Counter(keys).items():
        if count > 1:
            yield f"{count} deletion rules say {key[0]} on {key[-1]}"


def deletion_rules_are_in_order(spec: Spec, _: Collection[str]) -> Iterator[str]:
    """Yield a message for each pair of deletion rules in the wrong order.

    For the same job status, the workers may not be deleted later than the cluster, nor the cluster
    later than the job.
    """
    order = ("DeleteWorkers", "DeleteCluster", "DeleteSelf")
    seconds: dict[tuple[str, ...], dict[str, int]] = {}
    for rule in _rules(spec):
        status = (rule["condition"].get("jobStatus", ""), rule["condition"].get(_DEPLOYED, ""))
        seconds.setdefault(status, {})[rule["policy"]] = rule["condition"].get("ttlSeconds", 0)
    for policies in seconds.values():
        present = [policy for policy in order if policy in policies]
        for first, second in pairwise(present):
            if policies[first] > policies[second]:
                yield f"{second} after {policies[second]} s comes before {first}"


def deadlines_are_positive(spec: Spec, _: Collection[str]) -> Iterator[str]:
    for key in ("activeDeadlineSeconds", "preRunningDeadlineSeconds"):
        if spec.get(key) is not None and spec[key] <= 0:
            yield f"{key} is {spec[key]}: it must be positive"
    if (spec.get("backoffLimit") or 0) < 0:
        yield f"backoffLimit is {spec['backoffLimit']}"


def interactive_jobs_do_not_retry(spec: Spec, _: Collection[str]) -> Iterator[str]:
    if spec.get("submissionMode") == "InteractiveMode" and spec.get("backoffLimit"):
        yield "InteractiveMode excludes backoffLimit"


def sidecars_submit_alone(spec: Spec, _: Collection[str]) -> Iterator[str]:
    if spec.get("submissionMode") != "SidecarMode":
        return
    for key in ("submitterPodTemplate", "submitterConfig"):
        if spec.get(key):
            yield f"SidecarMode excludes {key}"
    head = (spec.get("rayClusterSpec") or {}).get("headGroupSpec") or {}
    policy = head.get("template", {}).get("spec", {}).get("restartPolicy") or "Never"
    if policy != "Never":
        yield f"SidecarMode needs restartPolicy Never of the head, got {policy}"


def cron_rule(spec: Spec, gates: Collection[str]) -> Iterator[str]:
    """Yield a message if the feature gate RayCronJob is off or the schedule is invalid.

    A valid schedule has five fields, or starts with "@" as in "@daily".
    """
    if "RayCronJob" not in gates:
        yield "a RayCronJob needs the feature gate RayCronJob"
    if len(spec["schedule"].split()) != 5 and not spec["schedule"].startswith("@"):
        yield f"schedule {spec['schedule']!r} has not five fields"


RULES = (
    runs_somewhere,
    a_selected_cluster_is_not_the_jobs,
    suspension_shuts_down,
    time_to_live_shuts_down,
    one_way_of_deletion,
    deletion_rules_are_allowed,
    deletion_rules_are_distinct,
    deletion_rules_are_in_order,
    deadlines_are_positive,
    interactive_jobs_do_not_retry,
    sidecars_submit_alone,
)
