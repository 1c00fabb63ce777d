"""Creates the ReplicaSet of each Deployment, because helm 3 waits until a ReplicaSet is ready."""

import hashlib
import json

from tests.simulator.api.objects import Body, Objects
from tests.simulator.controllers.ownership import belongs, owned


def ensure(objects: Objects, deployment: Body) -> Body:
    """Return the ReplicaSet for the Deployment's current template.

    Create this ReplicaSet if it does not exist. Delete the ReplicaSets for older templates together
    with their pods.
    """
    kind, owner = (
        objects.kinds.of("apps/v1", "ReplicaSet"),
        objects.kinds.of("apps/v1", "Deployment"),
    )
    metadata, spec = deployment["metadata"], deployment["spec"]
    digest = hashlib.sha256(json.dumps(spec["template"], sort_keys=True).encode()).hexdigest()[:10]
    name, namespace = f"{metadata['name']}-{digest}", metadata["namespace"]
    current = None
    for body in objects.list(kind, namespace, lambda body: belongs(deployment, body)):
        if body["metadata"]["name"] == name:
            current = body
        else:
            objects.delete(kind, namespace, body["metadata"]["name"])
    if current is None:
        body = {
            "metadata": {"labels": spec["template"]["metadata"].get("labels", {})},
            "spec": spec,
        }
        current = objects.create(kind, namespace, owned(owner, deployment, name, body))
    return current


def report(objects: Objects, deployment: Body, ready: int) -> None:
    """Write the status of a Deployment and of its ReplicaSet. `ready` counts the ready pods."""
    current = ensure(objects, deployment)
    metadata, wanted = deployment["metadata"], deployment["spec"].get("replicas", 1)
    replica_sets, deployments = (
        objects.kinds.of("apps/v1", "ReplicaSet"),
        objects.kinds.of("apps/v1", "Deployment"),
    )
    counts = {
        "replicas": wanted,
        "readyReplicas": ready,
        "availableReplicas": ready,
        "observedGeneration": current["metadata"]["generation"],
    }
    objects.set_status(replica_sets, metadata["namespace"], current["metadata"]["name"], counts)
    condition = {
        "type": "Available",
        "status": str(ready >= wanted),
        "reason": "MinimumReplicasAvailable",
    }
    status = {
        **counts,
        "updatedReplicas": wanted,
        "observedGeneration": metadata["generation"],
        "conditions": [condition],
    }
    objects.set_status(deployments, metadata["namespace"], metadata["name"], status)
