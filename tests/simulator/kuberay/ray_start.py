"""Builds the pod of a Ray node as KubeRay does, with labels, token and the `ray start` command.

The simulator chooses addresses, ports and directories, because the Ray nodes share this machine.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

from tests.simulator.api.objects import Body
from tests.simulator.network.addresses import Addresses
from tests.simulator.node.running_pod import PORTS

Flags = dict[str, str]
GCS, DASHBOARD, SERVE = 6379, 8265, 8000
_OWN = {
    "port",
    "dashboard-host",
    "dashboard-port",
    "metrics-export-port",
    "ray-client-server-port",
    "node-ip-address",
    "address",
    "block",
    "temp-dir",
}
_OWN |= {"dashboard-agent-listen-port", "min-worker-port", "max-worker-port", "head"}
_STORE_BYTES = 200_000_000
_UNITS = {
    "": 1,
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
}


def pod(
    cluster: Body, group: Body, addresses: Addresses, serve_port: int, head: tuple[str, int] | None
) -> Body:
    """Return the pod of a head node if `head` is None, or else the pod of a worker node.

    `head` is the IP address and the GCS port of the cluster's head node.
    """
    template = group["template"]
    container = dict(template["spec"]["containers"][0])
    flags, ports = _listening(addresses, serve_port, head)
    flags |= {
        key: value for key, value in (group.get("rayStartParams") or {}).items() if key not in _OWN
    } | _capacity(group, container)
    user = " ".join([*container.get("command", []), *container.get("args", [])])
    start = "exec ray start --block --disable-usage-stats " + " ".join(
        f"--{key}={_quoted(value)}" if value else f"--{key}" for key, value in flags.items()
    )
    container["command"], container["args"] = (
        ["bash", "-c"],
        [f"{user} && {start}" if user else start],
    )
    container["env"] = [
        *container.get("env", []),
        *_variables(cluster, head or ("$(POD_IP)", ports[GCS])),
        *_token(cluster),
    ]
    # ray_cluster.py polls the head's dashboard, so the pod needs no readiness probe.
    container.pop("readinessProbe", None)
    spec = {
        **template["spec"],
        "containers": [container, *template["spec"]["containers"][1:]],
        "restartPolicy": "Never",
    }
    metadata = {**template.get("metadata", {})}
    annotations = {
        **(metadata.get("annotations") or {}),
        PORTS: ",".join(f"{port}={real}" for port, real in ports.items()),
    }
    labels = {**(metadata.get("labels") or {}), **_labels(cluster, group, head is None)}
    return {"metadata": {**metadata, "annotations": annotations, "labels": labels}, "spec": spec}


def _listening(
    addresses: Addresses, serve_port: int, head: tuple[str, int] | None
) -> tuple[Flags, dict[int, int]]:
    """Return the flags that the simulator chooses, and a map from default to actual ports."""
    first, last = addresses.range()
    agent, metrics = addresses.port(), addresses.port()
    flags = {
        "node-ip-address": "$(POD_IP)",
        "min-worker-port": str(first),
        "max-worker-port": str(last),
        "dashboard-agent-listen-port": str(agent),
        "metrics-export-port": str(metrics),
        "object-store-memory": str(_STORE_BYTES),
    }
    ports = {8080: metrics, 52365: agent, SERVE: serve_port}
    if head is not None:
        return {**flags, "address": f"{head[0]}:{head[1]}"}, ports
    gcs, dashboard, client = addresses.port(), addresses.port(), addresses.port()
    flags |= {
        "port": str(gcs),
        "dashboard-host": "$(POD_IP)",
        "dashboard-port": str(dashboard),
        "ray-client-server-port": str(client),
    }
    return {"head": "", "temp-dir": "$(SIMULATOR_TEMP)", **flags}, {
        **ports,
        GCS: gcs,
        DASHBOARD: dashboard,
        10001: client,
    }


def _capacity(group: Body, container: Body) -> Flags:
    """Return the flags for CPUs, GPUs, memory, object store, custom resources and labels.

    Unlike KubeRay, the function ignores the GPU limits of containers, and limits the object store.
    """
    params, own = group.get("rayStartParams") or {}, dict(group.get("resources") or {})
    resources = container.get("resources", {})
    limits = {**resources.get("requests", {}), **resources.get("limits", {})}
    flags = {}
    cpus = (
        own.pop("CPU", None)
        or params.get("num-cpus")
        or (math.ceil(quantity(limits["cpu"])) if "cpu" in limits else None)
    )
    gpus = own.pop("GPU", None) or params.get("num-gpus")
    memory = (
        own.pop("memory", None)
        or params.get("memory")
        or (int(quantity(limits["memory"])) if "memory" in limits else None)
    )
    for key, value in (("num-cpus", cpus), ("num-gpus", gpus), ("memory", memory)):
        if value is not None:
            flags[key] = str(value)
    if own:
        flags["resources"] = json.dumps({name: float(value) for name, value in own.items()})
    if group.get("labels"):
        flags["labels"] = ",".join(f"{key}={value}" for key, value in group["labels"].items())
    flags["object-store-memory"] = str(
        min(int(params.get("object-store-memory", _STORE_BYTES)), _STORE_BYTES)
    )
    return flags


def quantity(value: Any) -> float:
    """Convert a Kubernetes quantity, such as "500m" or "2Gi", to a number."""
    text = str(value)
    if text.endswith("m"):
        return float(text[:-1]) / 1000
    unit = text.lstrip("0123456789.")
    return float(text.removesuffix(unit)) * _UNITS[unit]


def _variables(cluster: Body, gcs: tuple[str, int]) -> list[Body]:
    """Return the environment variables that the simulator adds to every Ray container.

    `gcs` holds the IP address and the port of the head's GCS.
    """
    name, namespace = cluster["metadata"]["name"], cluster["metadata"]["namespace"]
    return [
        {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "RAY_ADDRESS", "value": f"{gcs[0]}:{gcs[1]}"},
        {"name": "RAY_CLUSTER_NAME", "value": name},
        {"name": "FQ_RAY_IP", "value": f"{name}-head-svc.{namespace}.svc.cluster.local"},
        {"name": "RAY_USAGE_STATS_ENABLED", "value": "0"},
        # KubeRay does not set this variable. The simulator sets it, because Ray by default gives
        # its workers a low priority, and other processes on this machine would slow them down.
        {"name": "RAY_worker_niceness", "value": "0"},
    ]


def _token(cluster: Body) -> list[Body]:
    """Return the variables that turn token authentication on or off, as authOptions says."""
    options = cluster["spec"].get("authOptions") or {}
    if options.get("mode") != "token":
        return [{"name": "RAY_AUTH_MODE", "value": "disabled"}]
    reference = {
        "name": options.get("secretName") or cluster["metadata"]["name"],
        "key": "auth_token",
    }
    return [
        {"name": "RAY_AUTH_MODE", "value": "token"},
        {"name": "RAY_AUTH_TOKEN", "valueFrom": {"secretKeyRef": reference}},
    ]


def _labels(cluster: Body, group: Body, head: bool) -> Mapping[str, str]:
    name = cluster["metadata"]["name"]
    kept = {
        key: value
        for key, value in (cluster["metadata"].get("labels") or {}).items()
        if key.startswith("ray.io/")
    }
    node = {
        "ray.io/node-type": "head" if head else "worker",
        "ray.io/group": group.get("groupName", "headgroup"),
    }
    return {
        **kept,
        "ray.io/cluster": name,
        "ray.io/is-ray-node": "yes",
        "ray.io/identifier": f"{name}-{node['ray.io/node-type']}",
        **node,
    }


def _quoted(value: str) -> str:
    return (
        "'" + str(value).replace("'", "'\\''") + "'"
        if any(mark in str(value) for mark in " {}\"'")
        else str(value)
    )
