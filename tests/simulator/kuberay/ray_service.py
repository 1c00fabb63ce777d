"""Turns a RayService into a RayCluster, its Serve applications, and the head and serve Services.

- A changed serveConfigV2 is sent to Serve on the active cluster.
- A changed rayClusterConfig starts a second cluster, unless upgradeStrategy is None.

The annotation PORTS of a pod maps Serve's port 8000 to the port that Serve has on this machine.
"""

import hashlib
import json
import time

import yaml

from tests.simulator.api.objects import Body, NotFound, Objects, now
from tests.simulator.controllers.ownership import belongs, owned
from tests.simulator.kuberay import ray_start
from tests.simulator.kuberay.dashboard import Dashboard, Unanswered
from tests.simulator.kuberay.operator_view import OperatorView
from tests.simulator.kuberay.ray_cluster import RayClusters, create_service

_CONFIG = "simulator/cluster-config"
_DELAY_S = 60


class RayServices:
    """Reconciles RayServices, and remembers the last configuration deployed to each cluster."""

    def __init__(self, objects: Objects, clusters: RayClusters) -> None:
        self._objects, self._clusters, self._view = objects, clusters, OperatorView()
        self._kind, self._pods = (
            objects.kinds.of("ray.io/v1", "RayService"),
            objects.kinds.of("v1", "Pod"),
        )
        self._put: dict[str, str] = {}
        self._retired: dict[str, float] = {}

    def reconcile(self) -> None:
        """Reconcile every RayService once."""
        for service in self._objects.list(self._kind):
            clusters = self._own(service)
            if said := self._view.refusal(service):
                self._report(service, None, {}, said)
            elif service["spec"].get("suspend"):
                for cluster in clusters:
                    self._delete(cluster)
                self._report(service, None, {}, "Suspended")
            else:
                self._step(service, clusters)

    def _own(self, service: Body) -> list[Body]:
        return self._objects.list(
            self._clusters.kind,
            service["metadata"]["namespace"],
            lambda body: belongs(service, body),
        )

    def _step(self, service: Body, clusters: list[Body]) -> None:
        digest = hashlib.sha256(
            json.dumps(service["spec"]["rayClusterConfig"], sort_keys=True).encode()
        ).hexdigest()[:5]
        active = self._active(service, clusters)
        wanted = next(
            (body for body in clusters if body["metadata"]["annotations"].get(_CONFIG) == digest),
            None,
        )
        if wanted is None and (active is None or self._upgrades(service)):
            self._create(service, digest)
            return
        target = (
            wanted if wanted is not None and (active is None or self._upgrades(service)) else active
        )
        assert target is not None
        applications, said = self._deploy(service, target)
        serves = bool(applications) and all(
            item["status"] == "RUNNING" for item in applications.values()
        )
        if serves or active is None:
            self._point(service, target, serves)
        if serves:
            self._retire(
                service,
                [
                    body
                    for body in clusters
                    if body["metadata"]["name"] != target["metadata"]["name"]
                ],
            )
            active = target
        self._report(service, active, applications, said)

    def _upgrades(self, service: Body) -> bool:
        return (service["spec"].get("upgradeStrategy") or {}).get("type", "NewCluster") != "None"

    def _active(self, service: Body, clusters: list[Body]) -> Body | None:
        name = service.get("status", {}).get("activeServiceStatus", {}).get("rayClusterName")
        return next((body for body in clusters if body["metadata"]["name"] == name), None)

    def _create(self, service: Body, digest: str) -> None:
        metadata = service["metadata"]
        labels = {
            "ray.io/originated-from-cr-name": metadata["name"],
            "ray.io/originated-from-crd": "RayService",
        }
        labels = {**(metadata.get("labels") or {}), **labels}
        body = {
            "metadata": {"labels": labels, "annotations": {_CONFIG: digest}},
            "spec": service["spec"]["rayClusterConfig"],
        }
        self._objects.create(
            self._clusters.kind,
            metadata["namespace"],
            owned(self._kind, service, f"{metadata['name']}-{digest}", body),
        )

    def _deploy(self, service: Body, cluster: Body) -> tuple[dict[str, Body], str]:
        """Deploy the RayService's configuration, unless the cluster already has it.

        Return the statuses of Serve's applications, and the reason for a failed deployment, or "".
        """
        dashboard = (
            self._clusters.dashboard(cluster)
            if cluster.get("status", {}).get("state") == "ready"
            else None
        )
        if dashboard is None:
            return {}, "WaitForServeDeploymentReady"
        try:
            config = self._config(service, cluster)
            if self._put.get(cluster["metadata"]["uid"]) != config:
                dashboard.deploy(json.loads(config))
                self._put[cluster["metadata"]["uid"]] = config
            return self._statuses(dashboard), ""
        except Unanswered as error:
            return {}, str(error)

    def _config(self, service: Body, cluster: Body) -> str:
        """Return serveConfigV2 as JSON, with addresses, directories and ports of this machine."""
        head = self._clusters.head(cluster)
        pod = self._clusters.kubelet.pod(head) if head else None
        text = service["spec"]["serveConfigV2"]
        if pod is not None:
            text = pod.text(text, pod.body["spec"]["containers"][0])
        config = yaml.safe_load(text)
        options = {
            "host": "0.0.0.0",
            **(config.get("http_options") or {}),
            "port": self._clusters.serve_port(cluster),
        }
        return json.dumps({**config, "http_options": options}, sort_keys=True)

    def _statuses(self, dashboard: Dashboard) -> dict[str, Body]:
        found = {}
        for name, application in dashboard.applications().items():
            deployments = {
                key: {"status": item["status"], "message": item.get("message", "")}
                for key, item in application["deployments"].items()
            }
            found[name] = {
                "status": application["status"],
                "message": application.get("message", ""),
                "serveDeploymentStatuses": deployments,
            }
        return found

    def _point(self, service: Body, cluster: Body, serves: bool) -> None:
        """Make the Services select `cluster`. If `serves` is true, also label its pods."""
        name, base = cluster["metadata"]["name"], service["metadata"]["name"]
        head = {"ray.io/cluster": name, "ray.io/node-type": "head"}
        ports = (ray_start.GCS, ray_start.DASHBOARD, 10001, 8080, ray_start.SERVE)
        create_service(self._objects, self._kind, service, f"{base}-head-svc", head, ports)
        serve = {"ray.io/cluster": name, "ray.io/serve": "true"}
        create_service(
            self._objects, self._kind, service, f"{base}-serve-svc", serve, (ray_start.SERVE,)
        )
        if serves:
            self._mark(service, cluster)

    def _mark(self, service: Body, cluster: Body) -> None:
        """Set the label ray.io/serve on every pod of the cluster.

        The value is "false" for a head that excludeHeadPodFromServeSvc excludes. Otherwise the
        value is "true".
        """
        excluded = service["spec"].get("excludeHeadPodFromServeSvc")
        for pod in self._objects.list(
            self._pods, service["metadata"]["namespace"], lambda body: belongs(cluster, body)
        ):
            labels = pod["metadata"]["labels"]
            value = str(not (excluded and labels["ray.io/node-type"] == "head")).lower()
            if labels.get("ray.io/serve") != value:
                body = {
                    **pod,
                    "metadata": {**pod["metadata"], "labels": {**labels, "ray.io/serve": value}},
                }
                self._objects.replace(
                    self._pods, pod["metadata"]["namespace"], pod["metadata"]["name"], body
                )

    def _retire(self, service: Body, clusters: list[Body]) -> None:
        delay = service["spec"].get("rayClusterDeletionDelaySeconds", _DELAY_S)
        for cluster in clusters:
            since = self._retired.setdefault(cluster["metadata"]["uid"], time.monotonic())
            if time.monotonic() - since >= delay:
                self._delete(cluster)

    def _delete(self, cluster: Body) -> None:
        self._objects.delete(
            self._clusters.kind, cluster["metadata"]["namespace"], cluster["metadata"]["name"]
        )

    def _report(
        self, service: Body, active: Body | None, applications: dict[str, Body], said: str
    ) -> None:
        metadata, old = service["metadata"], service.get("status") or {}
        running = bool(applications) and all(
            item["status"] == "RUNNING" for item in applications.values()
        )
        before = {item["type"]: item for item in old.get("conditions", [])}.get("Ready", {})
        ready = str(running or (before.get("status") == "True" and active is not None))
        since = before["lastTransitionTime"] if before.get("status") == ready else now()
        condition = {
            "type": "Ready",
            "status": ready,
            "reason": "NonZeroServeEndpoints" if running else "Waiting",
            "message": said,
        }
        status: Body = {
            "serviceStatus": "Running" if running else "",
            "observedGeneration": metadata["generation"],
        }
        status["conditions"] = [{**condition, "lastTransitionTime": since}]
        if active is not None:
            status["activeServiceStatus"] = {
                "rayClusterName": active["metadata"]["name"],
                "applicationStatuses": applications,
            }
        try:
            self._objects.set_status(self._kind, metadata["namespace"], metadata["name"], status)
        except NotFound:
            return
