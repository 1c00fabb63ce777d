"""Tests the life of a RayJob: its retries, deadlines, suspension and deletion.

These tests replace Ray clusters with fakes. test_trial.py runs real Ray clusters.
"""

from typing import Any, cast

import pytest

from tests.simulator.api.kinds import Kind, Kinds, builtin
from tests.simulator.api.objects import Body, Objects
from tests.simulator.kuberay.ray_job import RayJobs
from tests.simulator.tools.fake_clusters import FakeClusters, FakeDashboard

POD = {"spec": {"containers": [{"name": "ray"}]}}
WORKERS = [{"groupName": "cpu", "replicas": 1, "minReplicas": 0, "maxReplicas": 1, "template": POD}]
CLUSTER = {"rayVersion": "2.60.0", "headGroupSpec": {"template": POD}, "workerGroupSpecs": WORKERS}


@pytest.fixture
def objects() -> Objects:
    names = ("RayCluster", "RayJob")
    return Objects(
        Kinds([*builtin(), *(Kind("ray.io", "v1", name, f"{name.lower()}s") for name in names)])
    )


class Job:
    """One RayJob on fake clusters, and the controller that reconciles it."""

    def __init__(self, objects: Objects, statuses: list[str], **spec: Any) -> None:
        self.objects, self.dashboard = objects, FakeDashboard(statuses)
        self.clusters = FakeClusters(objects, self.dashboard)
        self.jobs = RayJobs(objects, cast(Any, self.clusters))
        self.kind = objects.kinds.of("ray.io/v1", "RayJob")
        own = {} if "clusterSelector" in spec else {"rayClusterSpec": CLUSTER}
        objects.create(
            self.kind,
            "default",
            {"metadata": {"name": "j"}, "spec": {"entrypoint": "true", **own, **spec}},
        )

    def look(self, times: int = 1) -> Body:
        """Run the controllers for `times` rounds, then return the RayJob's status."""
        for _ in range(times):
            self.jobs.reconcile()
            self.clusters.reconcile()
        return self.objects.get(self.kind, "default", "j")["status"]

    def names(self) -> list[str]:
        """Return the names of all RayClusters."""
        return [body["metadata"]["name"] for body in self.objects.list(self.clusters.kind)]


def test_its_own_cluster_is_deleted_after_the_job(objects: Objects) -> None:
    job = Job(
        objects,
        ["SUCCEEDED"],
        shutdownAfterJobFinishes=True,
        ttlSecondsAfterFinished=0,
        metadata={"a": "b"},
        entrypointNumCpus=1,
    )
    status = job.look()
    assert status["jobDeploymentStatus"] == "Initializing" and job.names() == [
        status["rayClusterName"]
    ]
    assert job.look()["jobStatus"] == "PENDING"
    submission = {
        "entrypoint": "true",
        "submission_id": status["jobId"],
        "metadata": {"a": "b"},
        "entrypoint_num_cpus": 1,
    }
    assert job.dashboard.submitted == [submission]
    status = job.look()
    assert (status["jobDeploymentStatus"], status["jobStatus"], status["succeeded"]) == (
        "Complete",
        "SUCCEEDED",
        1,
    )
    job.look()
    assert job.names() == []


def test_a_failed_job_is_tried_again_on_a_new_cluster(objects: Objects) -> None:
    job = Job(objects, ["FAILED", "SUCCEEDED"], backoffLimit=1)
    first = job.look()["rayClusterName"]
    assert job.look(2)["jobDeploymentStatus"] == "Retrying" and job.names() == []
    second = job.look()["rayClusterName"]
    assert second != first and job.names() == [second]
    status = job.look(2)
    assert (status["jobDeploymentStatus"], status["failed"], status["succeeded"]) == (
        "Complete",
        1,
        1,
    )


def test_retries_end(objects: Objects) -> None:
    job = Job(objects, ["FAILED", "FAILED"], backoffLimit=1)
    status = job.look(8)
    assert (status["jobDeploymentStatus"], status["reason"], status["failed"]) == (
        "Failed",
        "AppFailed",
        2,
    )
    assert len(job.dashboard.submitted) == 2


def test_a_selected_cluster_stays(objects: Objects) -> None:
    job = Job(
        objects,
        ["SUCCEEDED"],
        clusterSelector={"ray.io/cluster": "shared"},
        shutdownAfterJobFinishes=True,
    )
    objects.create(job.clusters.kind, "default", {"metadata": {"name": "shared"}, "spec": CLUSTER})
    job.clusters.reconcile()
    assert job.look(5)["rayClusterName"] == "shared" and job.names() == ["shared"]


@pytest.mark.parametrize(
    ("deadline", "status"),
    [("activeDeadlineSeconds", "RUNNING"), ("preRunningDeadlineSeconds", "")],
)
def test_deadlines_fail_it(objects: Objects, deadline: str, status: str) -> None:
    job = Job(objects, ["RUNNING"], **{deadline: 60})
    job.look(3 if status else 1)
    body = objects.get(job.kind, "default", "j")
    objects.set_status(
        job.kind, "default", "j", {**body["status"], "startTime": "2020-01-01T00:00:00Z"}
    )
    ended = job.look()
    assert (ended["jobDeploymentStatus"], ended["reason"]) == ("Failed", "DeadlineExceeded")


def test_suspension_deletes_the_cluster_and_resumption_starts_again(objects: Objects) -> None:
    job = Job(objects, ["RUNNING"], suspend=False, shutdownAfterJobFinishes=True)
    job.look(3)
    body = objects.get(job.kind, "default", "j")
    objects.replace(job.kind, "default", "j", {**body, "spec": {**body["spec"], "suspend": True}})
    assert job.look()["jobDeploymentStatus"] == "Suspended" and job.names() == []
    body = objects.get(job.kind, "default", "j")
    objects.replace(job.kind, "default", "j", {**body, "spec": {**body["spec"], "suspend": False}})
    assert job.look()["jobDeploymentStatus"] == "Initializing" and len(job.names()) == 1


def rule(policy: str, status: str, ttl: int = 0) -> Body:
    return {"policy": policy, "condition": {"jobStatus": status, "ttlSeconds": ttl}}


def test_deletion_rules_follow_how_it_ended(objects: Objects) -> None:
    rules = [
        rule("DeleteWorkers", "SUCCEEDED"),
        rule("DeleteCluster", "FAILED"),
        rule("DeleteSelf", "SUCCEEDED", 3600),
    ]
    job = Job(objects, ["SUCCEEDED"], deletionStrategy={"deletionRules": rules})
    job.look(5)
    [cluster] = objects.list(job.clusters.kind)
    assert cluster["spec"]["workerGroupSpecs"][0]["suspend"] is True
    body = objects.get(job.kind, "default", "j")
    objects.set_status(
        job.kind, "default", "j", {**body["status"], "endTime": "2020-01-01T00:00:00Z"}
    )
    job.jobs.reconcile()
    assert objects.list(job.kind) == [] and job.names() == [], (
        "the RayJob and the cluster that it owns must be deleted"
    )


def test_a_job_that_the_operator_refuses_does_not_run(objects: Objects) -> None:
    job = Job(objects, [], clusterSelector={"ray.io/cluster": "shared"}, backoffLimit=1)
    status = job.look(3)
    assert (
        status["jobDeploymentStatus"] == "ValidationFailed" and "backoffLimit" in status["message"]
    )
    assert job.dashboard.submitted == []
