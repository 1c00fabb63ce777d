"""Tests that a Ray cluster's workers have room for the job's actors or the endpoint's replicas."""

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import yaml

from awares_platform.config import PlatformConfig, load
from tests.unit.helm.cases import CASES, Case
from tests.unit.helm.references import cluster_specs
from tests.unit.helm.render import Doc, of_kind
from tests.unit.helm.security import amount

Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Bundle:
    """The resources that one actor reserves, and the labels that its node must have.

    Example:
        Bundle(1.0, 1.0, {"awares/group": "rollout"})
    """

    cpus: float
    gpus: float
    selector: Labels = field(default_factory=dict)


@dataclass(slots=True)
class Node:
    """The free CPUs, the free GPUs and the labels of a Ray worker node.

    Example:
        Node(8.0, 1.0, {"awares/group": "rollout"})
    """

    cpus: float
    gpus: float
    labels: Labels = field(default_factory=dict)

    def takes(self, bundle: Bundle) -> bool:
        fits = self.cpus >= bundle.cpus and self.gpus >= bundle.gpus
        return fits and all(self.labels.get(key) == value for key, value in bundle.selector.items())


def demand(job: str, config: PlatformConfig) -> list[Bundle]:
    """Return one bundle for each actor of the job. All these actors run at the same time."""
    if job == "curate":
        return [
            Bundle(config.curate.engine_cpus, config.curate.engine_gpus)
        ] * config.curate.engines
    if job == "sft":
        return [
            Bundle(config.sft.threads, float(config.sft.use_gpu), config.sft.selector)
        ] * config.sft.workers
    if job == "evaluate":
        return [Bundle(config.evaluate.engine_cpus, config.evaluate.engine_gpus)]
    grpo = config.grpo
    engines = 1 if job == "doctor" else grpo.rollout_actors
    actors = [Bundle(grpo.rollout_cpus, grpo.rollout_gpus, grpo.rollout_selector)] * engines
    learners = [Bundle(grpo.learner_cpus, grpo.learner_gpus, grpo.learner_selector)]
    rewards = [Bundle(grpo.reward_cpus, 0.0)] * grpo.reward_workers
    return learners * grpo.learner_workers + actors + rewards


def nodes(spec: Doc) -> list[Node]:
    """Return the workers of a cluster in which each group has `maxReplicas` workers.

    The head is left out, because the chart gives the head no CPUs for actors.
    """
    found = []
    for group in spec["workerGroupSpecs"]:
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        cpus = amount((group.get("resources") or {}).get("CPU", limits["cpu"]))
        gpus = sum(amount(value) for key, value in limits.items() if key.endswith("/gpu"))
        found += [Node(cpus, gpus, group.get("labels") or {}) for _ in range(group["maxReplicas"])]
    return found


def unplaced(bundles: list[Bundle], places: list[Node]) -> list[Bundle]:
    """Place the bundles on the nodes `places`. Return the bundles for which no node has room."""
    left = []
    # Sort the bundles by their number of labels, then of GPUs, then of CPUs, all descending.
    for bundle in sorted(bundles, key=lambda one: (-len(one.selector), -one.gpus, -one.cpus)):
        fitting = [node for node in places if node.takes(bundle)]
        if not fitting:
            left.append(bundle)
            continue
        # Pick the node with the fewest free GPUs. Among such nodes, the fewest free CPUs decide.
        node = min(fitting, key=lambda node: (node.gpus - bundle.gpus, node.cpus - bundle.cpus))
        node.cpus, node.gpus = node.cpus - bundle.cpus, node.gpus - bundle.gpus
    return left


def jobs(case: Case, setup: Path) -> Iterator[tuple[str, list[Bundle], Doc]]:
    """Yield the name, bundles and cluster spec of each job script that the case's jobs run.

    The case's setup.toml is written to the path `setup`.
    """
    docs = case.docs()
    setup.write_text(
        next(
            doc["data"]["setup.toml"]
            for doc in of_kind(docs, "ConfigMap")
            if "setup.toml" in doc["data"]
        )
    )
    shared = {doc["metadata"]["name"]: doc["spec"] for doc in of_kind(docs, "RayCluster")}
    for doc in of_kind(docs, "RayJob", "RayCronJob"):
        spec = doc["spec"].get("jobTemplate", doc["spec"])
        cluster = spec.get("rayClusterSpec") or shared[spec["clusterSelector"]["ray.io/cluster"]]
        for job, arguments in re.findall(
            r"python jobs/(\w+)\.py --config [^\s\"']+([^&|;\"']*)", spec["entrypoint"]
        ):
            yield (
                f"{doc['metadata']['name']}: {job}",
                demand(job, load(setup, shlex.split(arguments))),
                cluster,
            )


@pytest.mark.parametrize("case", CASES, ids=str)
def test_jobs_fit_their_cluster(case: Case, tmp_path: Path) -> None:
    found = {
        name: unplaced(bundles, nodes(cluster))
        for name, bundles, cluster in jobs(case, tmp_path / "setup.toml")
    }
    assert {name: left for name, left in found.items() if left} == {}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_replicas_fit_the_endpoints_groups(case: Case) -> None:
    for doc in of_kind(case.docs(), "RayService"):
        application = yaml.safe_load(doc["spec"]["serveConfigV2"])["applications"][0]
        serve = PlatformConfig.model_validate(application["args"]).serve
        bundles = [Bundle(serve.replica_cpus, serve.replica_gpus)] * serve.autoscaling.get(
            "max_replicas", 1
        )
        assert unplaced(bundles, nodes(cluster_specs(doc)[0])) == []


def test_one_node_preset_fits_one_node_of_eight_gpus() -> None:
    docs = next(case for case in CASES if case.preset == "one-node").docs()
    clusters = [nodes(spec) for doc in docs for spec in cluster_specs(doc)]
    assert sum(node.gpus for places in clusters for node in places) <= 8


def test_the_trial_preset_requests_the_documented_amount() -> None:
    """Check that the trial preset's pods, except Helm hooks, request at most 6 CPUs and 16 GiB.

    The comment at the top of the preset promises about 5 CPUs and 14 GiB.
    """
    from tests.unit.helm.pods import containers, expand

    case = next(case for case in CASES if case.preset == "trial")
    pods = [
        pod
        for pod in expand(case.docs())
        if "helm.sh/hook" not in (pod["metadata"].get("annotations") or {})
    ]
    requests = [container["resources"]["requests"] for pod in pods for container in containers(pod)]
    assert sum(amount(each["cpu"]) for each in requests) <= 6
    assert sum(amount(each["memory"]) for each in requests) <= 16 * 2**30


def test_a_bundle_without_a_node_is_reported() -> None:
    small, large, labelled = Node(4.0, 0.0), Node(8.0, 1.0), Node(8.0, 1.0, {"pool": "a"})
    assert unplaced([Bundle(1.0, 0.0)] * 3, [Node(2.0, 0.0)]) == [Bundle(1.0, 0.0)]
    assert unplaced([Bundle(1.0, 1.0), Bundle(4.0, 0.0)], [replace(small), replace(large)]) == []
    assert unplaced([Bundle(1.0, 1.0), Bundle(8.0, 0.0)], [replace(small), replace(large)]) == [
        Bundle(8.0, 0.0)
    ]
    assert (
        unplaced(
            [Bundle(1.0, 1.0), Bundle(1.0, 1.0, {"pool": "a"})], [replace(labelled), replace(large)]
        )
        == []
    )
    assert unplaced([Bundle(1.0, 1.0, {"pool": "b"})], [replace(labelled), replace(large)]) == [
        Bundle(1.0, 1.0, {"pool": "b"})
    ]
