"""Checks that the pods of a rendered release fit the node pools that manifests/ declares.

    nodepool.eks-*   nodepool.aks-*   computeclass.gke-*   resourceflavor.* (on premises)
                  \\         |                |           /
                   +------> Pool: labels, taints, sizes of nodes, limit of GPUs

The sizes of cloud nodes are the vendors' numbers. The sizes of nodes on premises are examples.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.unit.helm.pods import containers, expand
from tests.unit.helm.references import cluster_specs
from tests.unit.helm.render import ROOT, Doc, name_of
from tests.unit.helm.security import amount

MANIFESTS = ROOT / "manifests"
TARGETS = ("eks", "gke", "aks", "onprem")
USABLE = 0.9
"""The share of a node's CPU, memory and disk that pods may request.

The kubelet and DaemonSets take the rest.
"""
SIZES = {
    "p5.48xlarge": (192, 2048, 8),
    "p5.4xlarge": (16, 256, 1),
    "g6e.4xlarge": (16, 128, 1),
    "g6e.8xlarge": (32, 256, 1),
    "m7i.2xlarge": (8, 32, 0),
    "m7i.4xlarge": (16, 64, 0),
    "a3-highgpu-8g": (208, 1872, 8),
    "a3-highgpu-1g": (26, 234, 1),
    "g2-standard-24": (24, 96, 2),
    "n2-standard-16": (16, 64, 0),
    "n2d-standard-16": (16, 64, 0),
    "Standard_ND96isr_H100_v5": (96, 1900, 8),
    "Standard_NC40ads_H100_v5": (40, 320, 1),
    "Standard_NC24ads_A100_v4": (24, 220, 1),
    "Standard_D8s_v5": (8, 32, 0),
    "Standard_D16s_v5": (16, 64, 0),
    "premises/learner": (96, 1024, 8),
    "premises/rollout": (16, 128, 1),
    "premises/endpoint": (16, 128, 1),
    "premises/cpu": (32, 128, 0),
}
"""Maps an instance type to its number of CPUs, its memory in GiB, and its number of GPUs."""
Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Pool:
    """One pool of nodes that have the same labels and taints.

    Example:
        Pool("awares-cpu", {"awares-train/pool": {"cpu"}}, (), ({"cpu": 14.4},), 0.0)
    """

    name: str
    labels: Mapping[str, set[str]]
    """Maps the key of each label to its possible values."""
    taints: Sequence[Labels]
    sizes: Sequence[Mapping[str, float]]
    """For each instance type, the amounts of each resource that a node offers to pods."""
    gpus: float
    """The largest number of GPUs that the pool can offer, or infinity without a limit."""

    def refusal(self, pod: Doc) -> str | None:
        """Return why no node of the pool takes the pod, or None if a node takes it."""
        spec = pod["spec"]
        for key, value in (spec.get("nodeSelector") or {}).items():
            if value not in self.labels.get(key, ()):
                return f"{self.name} declares no {key}={value}"
        for taint in self.taints:
            if not any(tolerates(one, taint) for one in spec.get("tolerations") or ()):
                return f"{self.name} has the taint {taint['key']}"
        asked = requests(pod)
        if not any(_holds(size, asked) for size in self.sizes):
            return f"{self.name} has no node with {asked}"
        return None


def _holds(size: Mapping[str, float], asked: Mapping[str, float]) -> bool:
    return all(size.get(name, 0.0) >= value for name, value in asked.items())


def tolerates(toleration: Labels, taint: Labels) -> bool:
    """Return whether a toleration lets a pod run on a node with this taint."""
    if toleration.get("effect") not in (None, taint["effect"]):
        return False
    if toleration.get("operator", "Equal") == "Exists":
        return toleration.get("key") in (None, taint["key"])
    return toleration.get("key") == taint["key"] and toleration.get("value") == taint.get("value")


def requests(pod: Doc) -> dict[str, float]:
    """Return the sum of the containers' requests, by resource."""
    total: dict[str, float] = {}
    for container in containers(pod):
        for name, value in container["resources"]["requests"].items():
            total[name] = total.get(name, 0.0) + amount(value)
    return total


def pools(target: str) -> list[Pool]:
    """Return the pools that the manifests of a target declare."""
    if target == "gke":
        return [_compute_class(doc) for doc in _docs("computeclass.gke-*")]
    if target == "onprem":
        return [_flavor(doc) for doc in _docs("resourceflavor.*")]
    classes = {doc["metadata"]["name"]: doc for doc in _docs(f"*nodeclass.{target}")}
    return [_node_pool(doc, classes) for doc in _docs(f"nodepool.{target}-*")]


def _docs(pattern: str) -> list[Doc]:
    return [yaml.safe_load(Path(p).read_text()) for p in sorted(MANIFESTS.glob(f"{pattern}.yaml"))]


def _size(instance: str, disk_gb: float) -> dict[str, float]:
    cpus, gib, gpus = SIZES[instance]
    return {
        "cpu": cpus * USABLE,
        "memory": gib * 2**30 * USABLE,
        "ephemeral-storage": disk_gb * 1e9 * USABLE,
        "nvidia.com/gpu": gpus,
    }


def _node_pool(doc: Doc, classes: Mapping[str, Doc]) -> Pool:
    template, limits = doc["spec"]["template"], doc["spec"]["limits"]
    wanted = {one["key"]: set(one["values"]) for one in template["spec"]["requirements"]}
    labels = {key: {value} for key, value in template["metadata"]["labels"].items()} | wanted
    node = classes[template["spec"]["nodeClassRef"]["name"]]["spec"]
    disk = (
        node.get("osDiskSizeGB")
        or amount(node["blockDeviceMappings"][0]["ebs"]["volumeSize"]) / 1e9
    )
    sizes = [_size(name, disk) for name in wanted["node.kubernetes.io/instance-type"]]
    taints = template["spec"].get("taints") or ()
    return Pool(doc["metadata"]["name"], labels, taints, sizes, limits.get("nvidia.com/gpu", 0))


def _compute_class(doc: Doc) -> Pool:
    """Return the pool of a GKE ComputeClass.

    GKE itself taints the nodes of each compute class, nodes with GPUs, and spot nodes.
    """
    spec, name = doc["spec"], doc["metadata"]["name"]
    key = "cloud.google.com/compute-class"
    labels = {key: {name}} | {
        label: {value} for label, value in spec["nodePoolConfig"]["nodeLabels"].items()
    }
    taints = [{"key": key, "value": name, "effect": "NoSchedule"}]
    first = spec["priorities"][0]
    if "gpu" in first:
        taints.append({"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"})
    if first.get("spot"):
        labels["cloud.google.com/gke-spot"] = {"true"}
        spot = {"key": "cloud.google.com/gke-spot", "value": "true", "effect": "NoSchedule"}
        taints.append(spot)
    sizes = [
        _size(one["machineType"], one.get("storage", {}).get("bootDiskSize", 100))
        for one in spec["priorities"]
    ]
    return Pool(name, labels, taints, sizes, float("inf") if "gpu" in first else 0.0)


def _flavor(doc: Doc) -> Pool:
    """Return the pool of a Kueue ResourceFlavor.

    On premises, administrators label and taint the nodes as the flavor says.
    """
    spec = doc["spec"]
    size = f"premises/{spec['nodeLabels']['awares-train/pool']}"
    labels = {key: {value} for key, value in spec["nodeLabels"].items()}
    taints = spec.get("nodeTaints") or ()
    return Pool(doc["metadata"]["name"], labels, taints, [_size(size, 1000)], float("inf"))


def faults(docs: Sequence[Doc], target: str) -> Iterator[str]:
    """Yield a message for each pod that no pool of the target takes.

    Also yield a message for each Ray cluster that needs more GPUs than a pool can offer.
    """
    found = pools(target)
    for pod in expand(docs):
        refusals = [pool.refusal(pod) for pool in found]
        if None not in refusals:
            yield f"{target}: {name_of(pod)}: {'; '.join(filter(None, refusals))}"
    for owner, gpus in used(docs).items():
        for pool in found:
            (label,) = pool.labels["awares-train/pool"]
            if gpus.get(label, 0.0) > pool.gpus:
                yield f"{target}: {owner} needs {gpus[label]} GPUs of {pool.name}"


def used(docs: Sequence[Doc], resource: str = "nvidia.com/gpu") -> dict[str, dict[str, float]]:
    """Return how much of a resource each Ray cluster requests at its maximum size.

    The outer key is the cluster's owner. The inner key is the pool, or "" without a pool.
    """
    totals: dict[str, dict[str, float]] = {}
    for doc in docs:
        for spec in cluster_specs(doc):
            pods: list[tuple[int, Any]] = [(1, spec["headGroupSpec"]["template"])]
            pods += [(one["maxReplicas"], one["template"]) for one in spec["workerGroupSpecs"]]
            submitter = doc["spec"].get("submitterPodTemplate")
            pods += [(1, submitter)] if submitter else []
            total = totals.setdefault(name_of(doc), {})
            for count, template in pods:
                pool = template["spec"].get("nodeSelector", {}).get("awares-train/pool", "")
                asked = requests(template).get(resource, 0.0)
                total[pool] = total.get(pool, 0.0) + count * asked
    return totals
