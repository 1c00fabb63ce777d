"""Reserves nodes for learner ranks, an engine and reward workers, as the grpo job would."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from awares_platform.cli.doctor.finding import Finding
from awares_platform.config.grpo import GrpoConfig

NODES = "nodes"
_REMEDY = (
    "Add nodes, raise maxReplicas of the groups in the chart, stop the jobs that hold the GPUs, or "
    "lower the workers, GPUs and CPUs of [grpo]."
)
_LEAST_CPU = 0.001
"""The CPUs to reserve for a process that uses neither CPUs nor GPUs.

Ray refuses an empty reservation.
"""


@dataclass(frozen=True, slots=True)
class Bundle:
    """The resources and the node labels that one process needs.

    Example:
        Bundle({"CPU": 8.0, "GPU": 1.0}, {"awares/group": "learner"})
    """

    resources: dict[str, float]
    labels: dict[str, str]

    @classmethod
    def of(cls, cpus: float, gpus: float, labels: Mapping[str, str]) -> "Bundle":
        resources = {name: count for name, count in (("CPU", cpus), ("GPU", gpus)) if count}
        return cls(resources or {"CPU": _LEAST_CPU}, dict(labels))

    def options(self, group: PlacementGroup, index: int) -> dict[str, Any]:
        """Return the Ray options that place an actor in the bundle `index` of `group`."""
        return {
            "num_cpus": self.resources.get("CPU", 0),
            "num_gpus": self.resources.get("GPU", 0),
            "scheduling_strategy": PlacementGroupSchedulingStrategy(
                group, placement_group_bundle_index=index
            ),
        }

    def __str__(self) -> str:
        needs = ", ".join(f"{count:g} {name}" for name, count in self.resources.items())
        labels = ", ".join(f"{name}={value}" for name, value in self.labels.items())
        return f"{needs} on nodes with {labels}" if labels else needs


def bundles(grpo: GrpoConfig) -> list[Bundle]:
    """Return the bundles of all learner ranks, one rollout engine and all reward workers."""
    learner = Bundle.of(grpo.learner_cpus, grpo.learner_gpus, grpo.learner_selector)
    rollout = Bundle.of(grpo.rollout_cpus, grpo.rollout_gpus, grpo.rollout_selector)
    reward = Bundle.of(grpo.reward_cpus, 0.0, {})
    return [*[learner] * grpo.learner_workers, rollout, *[reward] * grpo.reward_workers]


@contextmanager
def requested(wanted: list[Bundle]) -> Iterator[PlacementGroup]:
    """Ask Ray to reserve the bundles `wanted`, and release them after the block.

    `check_nodes` waits until Ray has reserved the bundles.
    """
    labels = [place.labels for place in wanted] if any(one.labels for one in wanted) else None
    group = placement_group(
        [place.resources for place in wanted],
        strategy="PACK",
        bundle_label_selector=labels,  # pyright: ignore[reportArgumentType]
    )
    try:
        yield group
    finally:
        remove_placement_group(group)


def check_nodes(group: PlacementGroup, wanted: list[Bundle], wait_s: float) -> list[Finding]:
    """Wait up to `wait_s` seconds until Ray has reserved all bundles, and return the finding.

    During the wait, an autoscaler may start nodes.
    """
    kinds = {str(place): wanted.count(place) for place in wanted}
    text = " and ".join(f"{count} x ({kind})" for kind, count in kinds.items())
    metrics = {"nodes": sum(node["Alive"] for node in ray.nodes())}
    if group.wait(timeout_seconds=max(1, int(wait_s))):
        return [Finding(NODES, "pass", f"reserved {text}", metrics=metrics)]
    total, free = ray.cluster_resources(), ray.available_resources()
    has = " and ".join(
        f"{total.get(name, 0):g} {name} ({free.get(name, 0):g} free)" for name in ("CPU", "GPU")
    )
    found = f"no room for {text} within {wait_s:.0f} s; the cluster has {has}"
    return [Finding(NODES, "fail", found, _REMEDY, metrics=metrics)]
