"""Lists the pods of a rendered chart, including pods that controllers create from templates.

RayCluster, RayJob,        headGroupSpec, workerGroupSpecs, submitterPodTemplate -+
RayService, RayCronJob                                                            |
Deployment, StatefulSet,   template ----------------------------------------------+-- Pods
Job, CronJob                                                                      |
Pod ------------------------------------------------------------------------------+
"""

import copy
from collections.abc import Iterator, Sequence
from typing import Any

from tests.unit.helm.render import Doc

CLUSTER_KEYS = ("rayClusterSpec", "rayClusterConfig")


def expand(docs: Sequence[Doc]) -> list[Doc]:
    """Return a Pod for each Pod and each pod template in the documents.

    A pod from a template is named `<kind>-<name>-<part>`.
    """
    return [pod for doc in docs for pod in _of(doc)]


def _of(doc: Doc) -> Iterator[Doc]:
    kind, spec = doc["kind"], doc.get("spec") or {}
    if kind == "Pod":
        yield copy.deepcopy(doc)
    elif kind == "RayCluster":
        yield from _cluster(doc, spec)
    elif kind in ("RayJob", "RayService", "RayCronJob"):
        inner = spec.get("jobTemplate", spec)
        for key in CLUSTER_KEYS:
            if inner.get(key):
                yield from _cluster(doc, inner[key])
        if inner.get("submitterPodTemplate"):
            yield _pod(doc, "submitter", inner["submitterPodTemplate"], {})
    elif kind == "CronJob":
        yield _pod(doc, "pod", spec["jobTemplate"]["spec"]["template"], {})
    elif "template" in spec and "spec" in spec["template"]:
        yield _pod(doc, "pod", spec["template"], {})


def _cluster(doc: Doc, spec: Doc) -> Iterator[Doc]:
    """Yield the pods of a Ray cluster."""
    # KubeRay adds a random suffix to the cluster name of a RayJob or a RayService. The fixed suffix
    # stands for it, so that a test fails if a selector omits the suffix.
    name = doc["metadata"]["name"] + ("" if doc["kind"] == "RayCluster" else "-x7k2p")
    labels = {
        "ray.io/cluster": name,
        "ray.io/is-ray-node": "yes",
        "app.kubernetes.io/name": "kuberay",
    }
    head = spec["headGroupSpec"]
    yield _pod(
        doc,
        "head",
        head["template"],
        labels | {"ray.io/node-type": "head", "ray.io/group": "headgroup"},
    )
    for group in spec.get("workerGroupSpecs") or ():
        name = group["groupName"]
        yield _pod(
            doc,
            name,
            group["template"],
            labels | {"ray.io/node-type": "worker", "ray.io/group": name},
        )


def _pod(doc: Doc, part: str, template: Doc, labels: dict[str, Any]) -> Doc:
    metadata = copy.deepcopy(template.get("metadata") or {})
    metadata["labels"] = labels | (metadata.get("labels") or {})
    metadata |= {
        "name": f"{doc['kind'].lower()}-{doc['metadata']['name']}-{part}",
        "namespace": doc["metadata"].get("namespace", "default"),
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": copy.deepcopy(template["spec"]),
    }


def containers(pod: Doc) -> list[Doc]:
    """Return the pod's init containers, followed by its other containers."""
    return [*(pod["spec"].get("initContainers") or ()), *pod["spec"]["containers"]]
