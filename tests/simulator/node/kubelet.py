"""Runs Pods as processes: starts new Pods, writes their status, and ends deleted Pods."""

import contextlib
import time
from pathlib import Path
from typing import Any

from tests.simulator.api.objects import Body, NotFound, Objects, now
from tests.simulator.network.addresses import Addresses
from tests.simulator.network.forwarder import Target
from tests.simulator.network.services import Services
from tests.simulator.node.running_pod import Place, RunningPod

# This time replaces terminationGracePeriodSeconds, because a test cannot wait for minutes.
_GRACE_S = 8.0


class Kubelet:
    """The kubelet of the only node.

    Only the controller's thread may start pods, because a process ends with the thread that started
    it.
    """

    def __init__(self, objects: Objects, base: Path, mark: str) -> None:
        self._objects, self._base, self._mark = objects, base, mark
        self.addresses = Addresses()
        self.services = Services(objects, self.addresses, self.endpoint)
        self._kind = objects.kinds.of("v1", "Pod")
        self._running: dict[str, RunningPod] = {}
        self._started = 0

    def reconcile(self) -> None:
        """Reconcile every Pod once."""
        bodies = {body["metadata"]["uid"]: body for body in self._objects.list(self._kind)}
        self._end([pod for uid, pod in self._running.items() if uid not in bodies])
        for uid, body in bodies.items():
            if uid in self._running:
                self._running[uid].advance()
                self._report(body, self._running[uid])
            elif body.get("status", {}).get("phase", "Pending") == "Pending":
                self._start(body)

    def pod(self, body: Body) -> RunningPod | None:
        """Return the RunningPod of a Pod object, or None before the pod starts."""
        return self._running.get(body["metadata"]["uid"])

    def endpoint(self, body: Body, port: Any) -> Target | None:
        """Return the address and the actual port number of a pod, or None if the pod is not ready.

        `port` is the targetPort of a Service: a name or a declared number.
        """
        pod = self.pod(body)
        if pod is None or {"type": "Ready", "status": "True"} not in body.get("status", {}).get(
            "conditions", []
        ):
            return None
        return pod.place.address, pod.port(port)

    def logs(self, namespace: str, name: str) -> str:
        """Return the output of a pod's containers, including containers that have ended.

        Return "" if the Pod has not started, or has been deleted.
        """
        for pod in list(self._running.values()):
            if (pod.namespace, pod.body["metadata"]["name"]) == (namespace, name):
                return pod.log()
        return ""

    def stop(self) -> None:
        """End all pods, and stop the forwarding of all Services."""
        self._end(list(self._running.values()))
        self.services.stop()

    def _start(self, body: Body) -> None:
        self._started += 1
        free, root = self.addresses, self._base / str(self._started)
        place = Place(
            free.address(),
            root,
            self._base / "claims",
            self._mark,
            self.services.rewrite,
            free.twin,
        )
        try:
            pod = self._running[body["metadata"]["uid"]] = RunningPod(self._objects, body, place)
        except NotFound as error:
            waiting = [
                {
                    "name": "main",
                    "state": {
                        "waiting": {"reason": "CreateContainerConfigError", "message": str(error)}
                    },
                }
            ]
            self._set(body, {"phase": "Pending", "containerStatuses": waiting})
        else:
            self._report(body, pod)

    def _report(self, body: Body, pod: RunningPod) -> None:
        ready = str(pod.ready)
        conditions = [{"type": kind, "status": ready} for kind in ("Ready", "ContainersReady")]
        if pod.phase == "Succeeded":
            conditions = [{**condition, "reason": "PodCompleted"} for condition in conditions]
        status = {"phase": pod.phase, "podIP": pod.place.address, "conditions": conditions}
        started = body.get("status", {}).get("startTime") or now()
        containers = [
            self._container(name, process.status, pod.restarts)
            for name, process in pod.processes.items()
        ]
        self._set(body, {**status, "startTime": started, "containerStatuses": containers})

    def _container(self, name: str, status: int | None, restarts: int) -> Body:
        ended = {"terminated": {"exitCode": status, "reason": "Error" if status else "Completed"}}
        state = {"running": {}} if status is None else ended
        return {"name": name, "ready": status is None, "restartCount": restarts, "state": state}

    def _set(self, body: Body, status: Body) -> None:
        with contextlib.suppress(NotFound):
            self._objects.set_status(
                self._kind, body["metadata"]["namespace"], body["metadata"]["name"], status
            )

    def _end(self, pods: list[RunningPod]) -> None:
        """End pods, the newest first, so that Ray's workers end before their head."""
        for pod in reversed(pods):
            pod.terminate()
        deadline = time.monotonic() + _GRACE_S
        for pod in reversed(pods):
            pod.wait(deadline)
            del self._running[pod.uid]
