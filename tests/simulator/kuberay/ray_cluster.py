"""Turns a RayCluster into a head Service, a head pod and worker pods.

The spec alone decides how many workers a group has, because autoscaling is not simulated. A changed
pod template affects only new pods.
"""

import base64
import contextlib

from tests.simulator.api.kinds import Kind
from tests.simulator.api.objects import Body, NotFound, Objects, now
from tests.simulator.controllers.ownership import belongs, owned
from tests.simulator.kuberay import ray_start
from tests.simulator.kuberay.dashboard import Dashboard
from tests.simulator.kuberay.operator_view import OperatorView
from tests.simulator.node.kubelet import Kubelet
from tests.simulator.node.running_pod import moved

SERVE_PORT = "simulator/serve-port"  # This RayCluster annotation holds the Serve proxies' port.


class RayClusters:
    """Reconciles RayClusters, and gives the clusters' dashboards to RayJobs and RayServices."""

    def __init__(self, objects: Objects, kubelet: Kubelet) -> None:
        self._objects, self.kubelet, self._view = objects, kubelet, OperatorView()
        self.kind = objects.kinds.of("ray.io/v1", "RayCluster")
        self._pods = objects.kinds.of("v1", "Pod")
        self._secrets = objects.kinds.of("v1", "Secret")

    def reconcile(self) -> None:
        """Reconcile every RayCluster once."""
        for cluster in self._objects.list(self.kind):
            metadata, said = cluster["metadata"], self._view.refusal(cluster)
            if said:
                status = {
                    "state": "failed",
                    "reason": said,
                    "observedGeneration": metadata["generation"],
                }
                self._set_status(metadata, status)
                continue
            pods = self._objects.list(
                self._pods,
                cluster["metadata"]["namespace"],
                lambda pod, cluster=cluster: belongs(cluster, pod),
            )
            if cluster["spec"].get("suspend"):
                for pod in pods:
                    self._delete(pod)
                self._report(cluster, [], None, "suspended")
            else:
                self._realise(cluster, pods)

    def dashboard(self, cluster: Body) -> Dashboard | None:
        """Return the dashboard of the cluster's head, or None until the dashboard answers."""
        if cluster.get("status", {}).get("state") not in ("ready", "starting"):
            return None
        for pod in self._objects.list(
            self._pods, cluster["metadata"]["namespace"], lambda pod: belongs(cluster, pod)
        ):
            if pod["metadata"]["labels"]["ray.io/node-type"] == "head":
                dashboard = self._at(cluster, pod)
                return dashboard if dashboard and dashboard.up() else None
        return None

    def serve_port(self, cluster: Body) -> int:
        """Return the port of this cluster's Serve proxies."""
        return int(cluster["metadata"]["annotations"][SERVE_PORT])

    def head(self, cluster: Body) -> Body | None:
        """Return the Pod object of the cluster's head, or None if there is no head."""
        pods = self._objects.list(
            self._pods, cluster["metadata"]["namespace"], lambda pod: belongs(cluster, pod)
        )
        return next(
            (pod for pod in pods if pod["metadata"]["labels"]["ray.io/node-type"] == "head"), None
        )

    def _realise(self, cluster: Body, pods: list[Body]) -> None:
        for pod in [
            pod for pod in pods if pod.get("status", {}).get("phase") in ("Failed", "Succeeded")
        ]:
            self._delete(pod)
            pods.remove(pod)
        cluster = self._annotated(cluster)
        self._head_service(cluster)
        heads = [pod for pod in pods if pod["metadata"]["labels"]["ray.io/node-type"] == "head"]
        if not heads:
            for pod in pods:
                self._delete(pod)  # Workers cannot run without their head.
            self._create(
                cluster,
                cluster["spec"]["headGroupSpec"],
                f"{cluster['metadata']['name']}-head",
                None,
            )
            self._report(cluster, [], None, "starting")
            return
        dashboard = self._at(cluster, heads[0])
        if dashboard is None or not dashboard.up():
            self._report(cluster, pods, heads[0], "starting")
            return
        target = (heads[0]["status"]["podIP"], moved(heads[0])[ray_start.GCS])
        self._workers(cluster, pods, target)
        wanted = 1 + sum(map(_wanted, cluster["spec"].get("workerGroupSpecs") or []))
        self._report(
            cluster, pods, heads[0], "ready" if dashboard.nodes() >= wanted else "starting"
        )

    def _annotated(self, cluster: Body) -> Body:
        """Return the cluster with the annotation SERVE_PORT.

        If the annotation is missing, add it with a free port.
        """
        metadata = cluster["metadata"]
        if SERVE_PORT in (metadata.get("annotations") or {}):
            return cluster
        annotations = {
            **(metadata.get("annotations") or {}),
            SERVE_PORT: str(self.kubelet.addresses.port()),
        }
        body = {**cluster, "metadata": {**metadata, "annotations": annotations}}
        return self._objects.replace(self.kind, metadata["namespace"], metadata["name"], body)

    def _workers(self, cluster: Body, pods: list[Body], head: tuple[str, int]) -> None:
        """Create and delete workers, until each group has as many workers as `_wanted` returns."""
        for group in cluster["spec"].get("workerGroupSpecs") or []:
            prefix = f"{cluster['metadata']['name']}-{group['groupName']}-worker"
            names = [f"{prefix}-{index}" for index in range(_wanted(group))]
            for pod in pods:
                if (
                    pod["metadata"]["labels"]["ray.io/group"] != group["groupName"]
                    or pod["metadata"]["labels"]["ray.io/node-type"] == "head"
                ):
                    continue
                if pod["metadata"]["name"] in names:
                    names.remove(pod["metadata"]["name"])
                else:
                    self._delete(pod)
            for name in names:
                self._create(cluster, group, name, head)

    def _create(self, cluster: Body, group: Body, name: str, head: tuple[str, int] | None) -> None:
        pod = ray_start.pod(cluster, group, self.kubelet.addresses, self.serve_port(cluster), head)
        self._objects.create(
            self._pods, cluster["metadata"]["namespace"], owned(self.kind, cluster, name, pod)
        )

    def _delete(self, pod: Body) -> None:
        self._objects.delete(self._pods, pod["metadata"]["namespace"], pod["metadata"]["name"])

    def _head_service(self, cluster: Body) -> None:
        name = f"{cluster['metadata']['name']}-head-svc"
        selector = {"ray.io/cluster": cluster["metadata"]["name"], "ray.io/node-type": "head"}
        create_service(
            self._objects,
            self.kind,
            cluster,
            name,
            selector,
            (ray_start.GCS, ray_start.DASHBOARD, 10001, 8080, ray_start.SERVE),
        )

    def _at(self, cluster: Body, head: Body) -> Dashboard | None:
        pod = self.kubelet.pod(head)
        if pod is None or pod.phase != "Running":
            return None
        return Dashboard(pod.place.address, pod.port(ray_start.DASHBOARD), self._token(cluster))

    def _token(self, cluster: Body) -> str | None:
        options = cluster["spec"].get("authOptions") or {}
        if options.get("mode") != "token":
            return None
        name = options.get("secretName") or cluster["metadata"]["name"]
        secret = self._objects.get(self._secrets, cluster["metadata"]["namespace"], name)
        return base64.b64decode(secret["data"]["auth_token"]).decode()

    def _report(self, cluster: Body, pods: list[Body], head: Body | None, state: str) -> None:
        metadata, ready = cluster["metadata"], state == "ready"
        workers = sum(pod["metadata"]["labels"]["ray.io/node-type"] == "worker" for pod in pods)
        wanted = sum(map(_wanted, cluster["spec"].get("workerGroupSpecs") or []))
        old = {item["type"]: item for item in cluster.get("status", {}).get("conditions", [])}
        conditions = [
            _condition(
                old,
                "HeadPodReady",
                head is not None and state != "suspended",
                "HeadPodRunningAndReady",
            ),
            _condition(
                old,
                "RayClusterProvisioned",
                ready or old.get("RayClusterProvisioned", {}).get("status") == "True",
                "AllPodRunningAndReadyFirstTime",
            ),
        ]
        status: Body = {
            "desiredWorkerReplicas": wanted,
            "availableWorkerReplicas": workers,
            "readyWorkerReplicas": wanted if ready else 0,
        }
        status |= {
            "conditions": conditions,
            "observedGeneration": metadata["generation"],
            "state": state,
        }
        if head is not None:
            status["head"] = {
                "podIP": head.get("status", {}).get("podIP", ""),
                "podName": head["metadata"]["name"],
            }
        self._set_status(metadata, status)

    def _set_status(self, metadata: Body, status: Body) -> None:
        with contextlib.suppress(NotFound):  # A client may have deleted the cluster.
            self._objects.set_status(self.kind, metadata["namespace"], metadata["name"], status)


def create_service(
    objects: Objects,
    kind: Kind,
    owner: Body,
    name: str,
    selector: dict[str, str],
    ports: tuple[int, ...],
) -> None:
    """Create a Service as the operator does. If the Service exists, update its spec."""
    services, namespace = objects.kinds.of("v1", "Service"), owner["metadata"]["namespace"]
    spec = {
        "selector": selector,
        "type": "ClusterIP",
        "ports": [{"name": f"port-{port}", "port": port, "targetPort": port} for port in ports],
    }
    try:
        found = objects.get(services, namespace, name)
    except NotFound:
        objects.create(services, namespace, owned(kind, owner, name, {"spec": spec}))
    else:
        if found["spec"] != found["spec"] | spec:
            objects.replace(services, namespace, name, {**found, "spec": found["spec"] | spec})


def _wanted(group: Body) -> int:
    """Return the number of worker pods that a group must have.

    The number is `replicas`, limited by minReplicas and maxReplicas, and multiplied by numOfHosts.
    A suspended group has no pods.
    """
    if group.get("suspend"):
        return 0
    count = max(
        group.get("minReplicas", 0), min(group.get("replicas", 0), group.get("maxReplicas", 2**31))
    )
    return count * group.get("numOfHosts", 1)


def _condition(old: dict[str, Body], name: str, holds: bool, reason: str) -> Body:
    """Return a status condition. An unchanged condition keeps its old transition time."""
    status = str(holds)
    since = (
        old[name]["lastTransitionTime"] if name in old and old[name]["status"] == status else now()
    )
    return {
        "type": name,
        "status": status,
        "reason": reason if holds else "Waiting",
        "message": "",
        "lastTransitionTime": since,
    }
