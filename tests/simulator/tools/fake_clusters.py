"""Provides fake RayClusters, which run no processes, for tests of RayJobs and RayServices."""

from dataclasses import dataclass, field
from typing import Any

from tests.simulator.api.objects import Body, Objects
from tests.simulator.kuberay.dashboard import Unanswered


@dataclass(slots=True)
class FakeDashboard:
    """A fake dashboard that all fake clusters share.

    Example:
        FakeDashboard(["FAILED", "SUCCEEDED"])
    """

    statuses: list[str] = field(default_factory=list)
    """The status of each job, in the order of submission."""
    serves: str = "RUNNING"
    """The status of the Serve application."""
    deployed: list[dict[str, Any]] = field(default_factory=list)
    """The configurations that `deploy` has accepted."""
    submitted: list[dict[str, Any]] = field(default_factory=list)
    """The requests that `submit` has received."""
    host: str = "127.0.0.2"
    port: int = 8265

    def submit(self, body: dict[str, Any]) -> None:
        self.submitted.append(body)

    def job(self, submission: str) -> dict[str, Any]:
        return {"status": self.statuses[len(self.submitted) - 1], "message": "said"}

    def job_log(self, submission: str) -> str:
        return f"log of {submission}"

    def deploy(self, config: dict[str, Any]) -> None:
        if "applications" not in config:
            raise Unanswered("PUT: 400 no applications")
        self.deployed.append(config)

    def applications(self) -> dict[str, Any]:
        return {"awares": {"status": self.serves, "deployments": {}}}


@dataclass(frozen=True, slots=True)
class FakePod:
    """A fake head pod, whose method `text` returns every text unchanged."""

    body: Body

    def text(self, text: str, container: Body) -> str:
        return text


class FakeClusters:
    """A fake of RayClusters, with the methods that RayJobs and RayServices call."""

    def __init__(self, objects: Objects, dashboard: FakeDashboard) -> None:
        self.kind = objects.kinds.of("ray.io/v1", "RayCluster")
        self._objects, self._dashboard = objects, dashboard
        self.kubelet = self

    def reconcile(self) -> None:
        """Make every cluster ready."""
        for body in self._objects.list(self.kind):
            self._objects.set_status(
                self.kind,
                body["metadata"]["namespace"],
                body["metadata"]["name"],
                {"state": "ready"},
            )

    def dashboard(self, cluster: Body) -> FakeDashboard:
        return self._dashboard

    def serve_port(self, cluster: Body) -> int:
        return 12345

    def head(self, cluster: Body) -> Body:
        return cluster

    def pod(self, body: Body) -> FakePod:
        return FakePod({"spec": {"containers": [{}]}})
