"""Turns a RayJob into a RayCluster and a submitted job, and copies the job's status.

    Initializing ---> Running ---+--> Complete --+--> the TTL and the deletion rules apply
    (the cluster      (the job   +--> Failed ----+
     starts)           runs)     +--> Retrying -----> Initializing, with a new cluster, at most
                                                      backoffLimit times

The controller submits the job itself, without the submitter pod of K8sJobMode.
"""

import time
import uuid
from datetime import UTC, datetime

import yaml

from tests.simulator.api.objects import Body, NotFound, Objects, now
from tests.simulator.api.selectors import matches
from tests.simulator.controllers.ownership import owned
from tests.simulator.kuberay.dashboard import Unanswered
from tests.simulator.kuberay.operator_view import OperatorView
from tests.simulator.kuberay.ray_cluster import RayClusters

_ENDED = ("SUCCEEDED", "FAILED", "STOPPED")


class RayJobs:
    """Reconciles RayJobs.

    `logs` maps the namespace and name of a RayJob to the output of the last driver that has ended.
    """

    def __init__(self, objects: Objects, clusters: RayClusters) -> None:
        self._objects, self._clusters, self._view = objects, clusters, OperatorView()
        self._kind = objects.kinds.of("ray.io/v1", "RayJob")
        self.logs: dict[tuple[str, str], str] = {}

    def reconcile(self) -> None:
        """Reconcile every RayJob once."""
        for job in self._objects.list(self._kind):
            status = dict(job.get("status") or {})
            try:
                self._step(job, status)
            except Unanswered as error:
                status["message"] = str(error)
            status["observedGeneration"] = job["metadata"]["generation"]
            try:
                self._objects.set_status(
                    self._kind, job["metadata"]["namespace"], job["metadata"]["name"], status
                )
            except NotFound:
                continue  # A deletion rule or a client has deleted the RayJob.

    def _step(self, job: Body, status: Body) -> None:
        phase, spec = status.get("jobDeploymentStatus", ""), job["spec"]
        if said := self._view.refusal(job):
            status |= {"jobDeploymentStatus": "ValidationFailed", "message": said}
        elif phase in ("Complete", "Failed"):
            self._clean_up(job, status)
        elif spec.get("suspend"):
            self._suspend(job, status)
        elif self._late(spec, status, phase):
            self._finish(job, status, "Failed", "DeadlineExceeded")
        elif phase in ("", "Retrying", "Suspended", "ValidationFailed"):
            self._begin(job, status)
        elif phase == "Initializing":
            self._submit(job, status)
        else:
            self._follow(job, status)

    def _begin(self, job: Body, status: Body) -> None:
        """Find the cluster that clusterSelector selects, or create a cluster for this job."""
        selector, metadata = job["spec"].get("clusterSelector"), job["metadata"]
        if selector:
            name = selector.get("ray.io/cluster") or next(
                (
                    body["metadata"]["name"]
                    for body in self._objects.list(self._clusters.kind, metadata["namespace"])
                    if matches(selector, body)
                ),
                "",
            )
        else:
            name = f"{metadata['name']}-{uuid.uuid4().hex[:5]}"
            labels = {
                "ray.io/originated-from-cr-name": metadata["name"],
                "ray.io/originated-from-crd": "RayJob",
            }
            body = {
                "metadata": {"labels": {**(metadata.get("labels") or {}), **labels}},
                "spec": job["spec"]["rayClusterSpec"],
            }
            self._objects.create(
                self._clusters.kind, metadata["namespace"], owned(self._kind, job, name, body)
            )
        submission = job["spec"].get("jobId") or f"{metadata['name']}-{uuid.uuid4().hex[:5]}"
        status |= {
            "rayClusterName": name,
            "jobId": submission,
            "jobStatus": "",
            "jobDeploymentStatus": "Initializing",
        }
        status.setdefault("startTime", now())

    def _submit(self, job: Body, status: Body) -> None:
        """Submit the job if the cluster is ready."""
        cluster = self._cluster(job, status)
        if cluster is None or cluster.get("status", {}).get("state") != "ready":
            return
        dashboard, head = self._clusters.dashboard(cluster), self._clusters.head(cluster)
        pod = self._clusters.kubelet.pod(head) if head else None
        if dashboard is None or pod is None:
            return
        spec = job["spec"]
        container = pod.body["spec"]["containers"][0]
        body: Body = {
            "entrypoint": pod.text(spec["entrypoint"], container),
            "submission_id": status["jobId"],
            "metadata": spec.get("metadata") or {},
        }
        if spec.get("runtimeEnvYAML"):
            body["runtime_env"] = yaml.safe_load(pod.text(spec["runtimeEnvYAML"], container))
        for field, name in (
            ("entrypointNumCpus", "entrypoint_num_cpus"),
            ("entrypointNumGpus", "entrypoint_num_gpus"),
        ):
            if field in spec:
                body[name] = spec[field]
        dashboard.submit(body)
        status |= {
            "jobDeploymentStatus": "Running",
            "jobStatus": "PENDING",
            "dashboardURL": f"{dashboard.host}:{dashboard.port}",
        }

    def _follow(self, job: Body, status: Body) -> None:
        """Copy the job's status. If the job has ended, finish the RayJob."""
        cluster = self._cluster(job, status)
        dashboard = self._clusters.dashboard(cluster) if cluster else None
        if dashboard is None:
            return
        seen = dashboard.job(status["jobId"])
        status |= {"jobStatus": seen["status"], "message": seen.get("message") or ""}
        if seen["status"] in _ENDED:
            self.logs[job["metadata"]["namespace"], job["metadata"]["name"]] = dashboard.job_log(
                status["jobId"]
            )
            self._finish(
                job, status, "Complete" if seen["status"] == "SUCCEEDED" else "Failed", "AppFailed"
            )

    def _finish(self, job: Body, status: Body, phase: str, reason: str) -> None:
        """Set the phase to Complete or Failed, or to Retrying if another try is allowed."""
        failed = status.get("failed", 0) + (phase == "Failed")
        status |= {"failed": failed, "succeeded": int(phase == "Complete")}
        if (
            phase == "Failed"
            and reason == "AppFailed"
            and failed <= job["spec"].get("backoffLimit", 0)
        ):
            self._delete_cluster(job, status)
            status["jobDeploymentStatus"] = "Retrying"
            return
        status |= {"jobDeploymentStatus": phase, "endTime": now()}
        if phase == "Failed":
            status["reason"] = reason

    def _clean_up(self, job: Body, status: Body) -> None:
        """Apply the deletion rules and the TTL of an ended RayJob."""
        spec, age = job["spec"], time.time() - _seconds(status["endTime"])
        for rule in (spec.get("deletionStrategy") or {}).get("deletionRules") or []:
            condition = rule["condition"]
            asked = (
                condition.get("jobStatus") == status.get("jobStatus")
                or condition.get("jobDeploymentStatus") == status["jobDeploymentStatus"]
            )
            if asked and age >= condition.get("ttlSeconds", 0):
                self._delete_by(rule["policy"], job, status)
        if spec.get("shutdownAfterJobFinishes") and age >= spec.get("ttlSecondsAfterFinished", 0):
            self._delete_cluster(job, status)

    def _delete_by(self, policy: str, job: Body, status: Body) -> None:
        cluster = self._cluster(job, status)
        if policy == "DeleteSelf":
            self._objects.delete(self._kind, job["metadata"]["namespace"], job["metadata"]["name"])
        elif policy == "DeleteCluster":
            self._delete_cluster(job, status)
        elif policy == "DeleteWorkers" and cluster is not None:
            groups = [
                {**group, "suspend": True}
                for group in cluster["spec"].get("workerGroupSpecs") or []
            ]
            if groups != cluster["spec"].get("workerGroupSpecs"):
                body = {**cluster, "spec": {**cluster["spec"], "workerGroupSpecs": groups}}
                self._objects.replace(
                    self._clusters.kind,
                    job["metadata"]["namespace"],
                    status["rayClusterName"],
                    body,
                )

    def _suspend(self, job: Body, status: Body) -> None:
        self._delete_cluster(job, status)
        status |= {
            "jobDeploymentStatus": "Suspended",
            "jobStatus": "",
            "rayClusterName": "",
            "jobId": "",
        }

    def _delete_cluster(self, job: Body, status: Body) -> None:
        """Delete the job's cluster, unless clusterSelector selected this cluster."""
        if not job["spec"].get("clusterSelector") and self._cluster(job, status):
            self._objects.delete(
                self._clusters.kind, job["metadata"]["namespace"], status["rayClusterName"]
            )

    def _cluster(self, job: Body, status: Body) -> Body | None:
        try:
            return self._objects.get(
                self._clusters.kind, job["metadata"]["namespace"], status.get("rayClusterName", "")
            )
        except NotFound:
            return None

    def _late(self, spec: Body, status: Body, phase: str) -> bool:
        """Return whether activeDeadlineSeconds or preRunningDeadlineSeconds has passed."""
        if "startTime" not in status:
            return False
        age = time.time() - _seconds(status["startTime"])
        waiting = phase in ("", "Initializing", "Retrying") and age > spec.get(
            "preRunningDeadlineSeconds", float("inf")
        )
        return waiting or age > spec.get("activeDeadlineSeconds", float("inf"))


def _seconds(text: str) -> float:
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()
