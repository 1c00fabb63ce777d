"""Turns Deployments, StatefulSets and Jobs into Pods."""

import hashlib
import json

from tests.simulator.api.kinds import Kind
from tests.simulator.api.objects import Body, Objects, now
from tests.simulator.controllers import replica_sets
from tests.simulator.controllers.ownership import belongs, owned

_TEMPLATE = "simulator/template"


class Workloads:
    """Reconciles Deployments, StatefulSets and Jobs.

    An update deletes old pods before it creates new pods. A Job runs one pod at a time.
    """

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        of = objects.kinds.of
        self._pods, self._jobs = of("v1", "Pod"), of("batch/v1", "Job")
        self._deployments, self._replica_sets, self._stateful = (
            of("apps/v1", name) for name in ("Deployment", "ReplicaSet", "StatefulSet")
        )

    def reconcile(self) -> None:
        """Reconcile every Deployment, StatefulSet and unfinished Job once."""
        for body in self._objects.list(self._deployments):
            current = replica_sets.ensure(self._objects, body)
            pods = self._replicas(self._replica_sets, current, body)
            replica_sets.report(self._objects, body, sum(map(ready, pods)))
        for body in self._objects.list(self._stateful):
            count = sum(map(ready, self._replicas(self._stateful, body, body)))
            wanted, metadata = body["spec"].get("replicas", 1), body["metadata"]
            counts = dict.fromkeys(
                ("readyReplicas", "availableReplicas", "currentReplicas", "updatedReplicas"), count
            )
            revisions = {
                "currentRevision": "one",
                "updateRevision": "one",
                "observedGeneration": metadata["generation"],
            }
            status = {**counts, **revisions, "replicas": wanted}
            self._objects.set_status(
                self._stateful, metadata["namespace"], metadata["name"], status
            )
        for body in self._objects.list(self._jobs):
            if not any(
                condition["type"] in ("Complete", "Failed")
                for condition in body.get("status", {}).get("conditions", [])
            ):
                self._run(body)

    def _replicas(self, kind: Kind, owner: Body, body: Body) -> list[Body]:
        """Make the pods of `owner` match the spec of `body`, and return these pods.

        For a Deployment, `body` is the Deployment and `owner` is its ReplicaSet. For a StatefulSet,
        both are the StatefulSet.
        """
        namespace, spec = owner["metadata"]["namespace"], body["spec"]
        digest = hashlib.sha256(json.dumps(spec["template"], sort_keys=True).encode()).hexdigest()[
            :10
        ]
        names = [f"{owner['metadata']['name']}-{index}" for index in range(spec.get("replicas", 1))]
        pods = []
        for pod in self._objects.list(self._pods, namespace, lambda pod: belongs(owner, pod)):
            metadata = pod["metadata"]
            if metadata["name"] not in names or metadata["annotations"].get(_TEMPLATE) != digest:
                self._objects.delete(self._pods, namespace, metadata["name"])
            else:
                names.remove(metadata["name"])
                pods.append(pod)
        for name in names:
            pods.append(self._create(kind, owner, _with_claims(spec, name), name, digest))
        return pods

    def _create(self, kind: Kind, owner: Body, template: Body, name: str, digest: str = "") -> Body:
        metadata = {**template.get("metadata", {})}
        metadata["annotations"] = {**(metadata.get("annotations") or {}), _TEMPLATE: digest}
        pod = owned(kind, owner, name, {**template, "metadata": metadata})
        return self._objects.create(self._pods, owner["metadata"]["namespace"], pod)

    def _run(self, job: Body) -> None:
        """Create the Job's next pod if all earlier pods have failed. Then write the Job's status.

        A suspended Job, or a Job with more than backoffLimit failed pods, gets no further pod.
        """
        metadata, spec = job["metadata"], job["spec"]
        pods = self._objects.list(self._pods, metadata["namespace"], lambda pod: belongs(job, pod))
        phases = [pod.get("status", {}).get("phase") for pod in pods]
        failed, succeeded = phases.count("Failed"), phases.count("Succeeded")
        status: Body = {
            "active": len(phases) - failed - succeeded,
            "failed": failed,
            "succeeded": succeeded,
            "startTime": metadata["creationTimestamp"],
        }
        if succeeded:
            status |= {
                "conditions": [{"type": "Complete", "status": "True"}],
                "completionTime": now(),
                "active": 0,
            }
        elif failed > spec.get("backoffLimit", 6):
            status["conditions"] = [
                {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}
            ]
        elif failed == len(phases) and not spec.get("suspend"):
            self._create(self._jobs, job, spec["template"], f"{metadata['name']}-{len(phases)}")
        self._objects.set_status(self._jobs, metadata["namespace"], metadata["name"], status)


def ready(pod: Body) -> bool:
    """Return whether the pod's status says that the pod is ready."""
    return any(
        item["type"] == "Ready" and item["status"] == "True"
        for item in pod.get("status", {}).get("conditions", [])
    )


def _with_claims(spec: Body, name: str) -> Body:
    """Return the template of the pod `name`, with one volume for each volumeClaimTemplate."""
    claims = [claim["metadata"]["name"] for claim in spec.get("volumeClaimTemplates") or []]
    if not claims:
        return spec["template"]
    added = [
        {"name": claim, "persistentVolumeClaim": {"claimName": f"{claim}-{name}"}}
        for claim in claims
    ]
    template = spec["template"]
    return {
        **template,
        "spec": {**template["spec"], "volumes": [*(template["spec"].get("volumes") or []), *added]},
    }
