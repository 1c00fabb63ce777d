"""Tests how the simulator reacts to changes of a RayService.

These tests replace Ray clusters with fakes. test_trial.py runs real Ray clusters.
"""

from typing import Any, cast

import pytest

from tests.simulator.api.kinds import Kind, Kinds, builtin
from tests.simulator.api.objects import Body, Objects
from tests.simulator.kuberay.ray_service import RayServices
from tests.simulator.tools.fake_clusters import FakeClusters, FakeDashboard


def cluster(version: str) -> Body:
    return {
        "rayVersion": version,
        "headGroupSpec": {"template": {"spec": {"containers": [{"name": "ray"}]}}},
    }


class Service:
    """One RayService on fake clusters, and the controller that reconciles it."""

    def __init__(self, **spec: Any) -> None:
        names = ("RayCluster", "RayService")
        self.objects = Objects(
            Kinds([*builtin(), *(Kind("ray.io", "v1", name, f"{name.lower()}s") for name in names)])
        )
        self.dashboard = FakeDashboard()
        self.clusters = FakeClusters(self.objects, self.dashboard)
        self.services = RayServices(self.objects, cast(Any, self.clusters))
        self.kind = self.objects.kinds.of("ray.io/v1", "RayService")
        body = {
            "serveConfigV2": "applications: [{name: awares}]",
            "rayClusterConfig": cluster("2.60.0"),
            "rayClusterDeletionDelaySeconds": 0,
        }
        self.objects.create(
            self.kind, "default", {"metadata": {"name": "s"}, "spec": {**body, **spec}}
        )

    def look(self, times: int = 1) -> Body:
        """Run the controllers for `times` rounds, then return the RayService's status."""
        for _ in range(times):
            self.services.reconcile()
            self.clusters.reconcile()
        return self.objects.get(self.kind, "default", "s").get("status", {})

    def change(self, **spec: Any) -> None:
        """Replace these fields of the RayService's spec."""
        body = self.objects.get(self.kind, "default", "s")
        self.objects.replace(self.kind, "default", "s", {**body, "spec": {**body["spec"], **spec}})

    def names(self) -> list[str]:
        """Return the names of all RayClusters."""
        return [body["metadata"]["name"] for body in self.objects.list(self.clusters.kind)]

    def target(self) -> str:
        """Return the name of the RayCluster that the Service s-serve-svc selects."""
        body = self.objects.get(self.objects.kinds.of("v1", "Service"), "default", "s-serve-svc")
        return body["spec"]["selector"]["ray.io/cluster"]


def ready(status: Body) -> str:
    return status["conditions"][0]["status"]


def test_it_serves_on_a_cluster_of_its_own() -> None:
    service = Service()
    service.dashboard.serves = "DEPLOYING"
    assert ready(service.look(3)) == "False"
    service.dashboard.serves = "RUNNING"
    status = service.look()
    assert (ready(status), status["serviceStatus"]) == ("True", "Running")
    assert (
        service.names() == [service.target()] == [status["activeServiceStatus"]["rayClusterName"]]
    )
    assert service.dashboard.deployed == [
        {"applications": [{"name": "awares"}], "http_options": {"host": "0.0.0.0", "port": 12345}}
    ]


def test_another_configuration_is_put_to_the_same_cluster() -> None:
    service = Service()
    service.look(3)
    before = service.names()
    service.change(serveConfigV2="applications: [{name: awares, args: {a: 1}}]")
    service.look(3)
    assert service.names() == before
    assert [config["applications"][0].get("args") for config in service.dashboard.deployed] == [
        None,
        {"a": 1},
    ]


def test_without_upgrades_another_cluster_configuration_does_nothing() -> None:
    service = Service(upgradeStrategy={"type": "None"})
    service.look(3)
    before = service.names()
    service.change(rayClusterConfig=cluster("2.60.1"))
    assert ready(service.look(3)) == "True" and service.names() == before


def test_a_second_cluster_takes_over_once_it_serves() -> None:
    service = Service(upgradeStrategy={"type": "NewCluster"})
    service.look(3)
    [first] = service.names()
    service.change(rayClusterConfig=cluster("2.60.1"))
    service.dashboard.serves = "DEPLOYING"
    assert ready(service.look(3)) == "True", "the first cluster must continue to serve"
    assert len(service.names()) == 2 and service.target() == first
    service.dashboard.serves = "RUNNING"
    service.look(2)
    [second] = service.names()
    assert second != first and service.target() == second


def test_the_status_has_serves_refusal() -> None:
    service = Service(serveConfigV2="application: []")
    status = service.look(3)
    assert (
        ready(status) == "False"
        and status["conditions"][0]["message"] == "PUT: 400 no applications"
    )


@pytest.mark.parametrize("times", [1, 3])
def test_suspension_deletes_the_cluster(times: int) -> None:
    service = Service()
    service.look(times)
    service.change(suspend=True)
    service.look()
    assert service.names() == []


def test_a_service_that_the_operator_refuses_does_not_serve() -> None:
    service = Service(upgradeStrategy={"type": "NewClusterWithIncrementalUpgrade"})
    status = service.look(3)
    assert ready(status) == "False" and "incremental" in status["conditions"][0]["message"].lower()
    assert service.names() == []
