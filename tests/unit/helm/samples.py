"""Builds small valid KubeRay resources. A test changes some keys to make a resource invalid."""

import copy
from typing import Any

from tests.unit.helm.render import Doc

POD = {"spec": {"containers": [{"name": "ray", "image": "ray"}]}}
CLUSTER = {
    "rayVersion": "2.60.0",
    "enableInTreeAutoscaling": True,
    "autoscalerOptions": {"version": "v2"},
    "headGroupSpec": {"rayStartParams": {}, "template": POD},
    "workerGroupSpecs": [
        {
            "groupName": "cpu",
            "minReplicas": 0,
            "maxReplicas": 2,
            "rayStartParams": {},
            "template": POD,
        }
    ],
}
JOB = {
    "entrypoint": "true",
    "shutdownAfterJobFinishes": True,
    "ttlSecondsAfterFinished": 60,
    "rayClusterSpec": CLUSTER,
}
SERVICE = {
    "serveConfigV2": "",
    "rayClusterConfig": CLUSTER,
    "upgradeStrategy": {
        "type": "NewClusterWithIncrementalUpgrade",
        "clusterUpgradeOptions": {
            "maxSurgePercent": 20,
            "stepSizePercent": 10,
            "intervalSeconds": 5,
            "gatewayClassName": "istio",
        },
    },
}
CRON = {"schedule": "0 3 * * *", "jobTemplate": JOB}
SPECS = {"RayCluster": CLUSTER, "RayJob": JOB, "RayService": SERVICE, "RayCronJob": CRON}
OUT = object()


def document(
    kind: str,
    changes: dict[str, Any],
    name: str = "sample",
    annotations: dict[str, str] | None = None,
) -> Doc:
    """Return the valid sample of `kind`, with some keys of its spec changed.

    `changes` maps dotted keys to new values. The value OUT removes the key.
    """
    spec = copy.deepcopy(SPECS[kind])
    for path, value in changes.items():
        *parents, last = path.split(".")
        place: Any = spec
        for part in parents:
            place = place[int(part)] if isinstance(place, list) else place.setdefault(part, {})
        if value is OUT:
            del place[last]
        else:
            place[last] = copy.deepcopy(value)
    metadata = {"name": name} | ({"annotations": annotations} if annotations else {})
    return {"apiVersion": "ray.io/v1", "kind": kind, "metadata": metadata, "spec": spec}
