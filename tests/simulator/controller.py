"""Simulates a Kubernetes cluster with KubeRay. Each container runs as a process of this machine.

helm --> ApiServer --> Objects <-- Controller, which reconciles in each round:
                                     Services      loopback addresses that forward to pods
                                     Workloads     Deployment, StatefulSet, Job -> Pods
                                     RayClusters   RayCluster -> Pods that run `ray start`
                                     RayJobs       RayJob -> RayCluster, Jobs API
                                     RayServices   RayService -> RayCluster, Serve's REST API
                                     Kubelet       Pods -> processes
"""

import os
import shutil
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.processes import kill
from tests.simulator.api.kinds import Kinds
from tests.simulator.api.objects import Objects
from tests.simulator.api.server import ApiServer, running
from tests.simulator.controllers.workloads import Workloads
from tests.simulator.kuberay.ray_cluster import RayClusters
from tests.simulator.kuberay.ray_job import RayJobs
from tests.simulator.kuberay.ray_service import RayServices
from tests.simulator.node.kubelet import Kubelet
from tests.simulator.node.process import leftovers

_LOOK_S = 0.4


class Controller:
    """Reconciles all objects until `stop` is called.

    `mark` identifies the processes of this simulator.
    """

    def __init__(self, objects: Objects, base: Path) -> None:
        self.objects, self.mark = objects, base.name
        self.kubelet = Kubelet(objects, base, self.mark)
        # Maps (namespace, name) of a RayJob to the output of its last driver.
        self.job_logs: dict[tuple[str, str], str] = {}
        parts = [self.kubelet.services, Workloads(objects), *self._ray(objects), self.kubelet]
        self._parts = tuple(part.reconcile for part in parts)
        # The tracebacks of exceptions in reconcilers. If there are any, `simulator` fails at the
        # end of its block.
        self.faults: list[str] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="controller")

    def _ray(self, objects: Objects) -> list[RayClusters | RayJobs | RayServices]:
        """Return KubeRay's controllers, or an empty list if the cluster lacks KubeRay's CRDs."""
        if not objects.kinds.knows("ray.io/v1", "RayCluster"):
            return []
        clusters = RayClusters(objects, self.kubelet)
        jobs = RayJobs(objects, clusters)
        self.job_logs = jobs.logs
        return [clusters, jobs, RayServices(objects, clusters)]

    def start(self) -> None:
        """Start the controller's thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the controller's thread, and wait until this thread has ended all pods."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._stopping.wait(_LOOK_S):
                for reconcile in self._parts:
                    self._guarded(reconcile)
        finally:
            self.kubelet.stop()

    def _guarded(self, reconcile: Callable[[], None]) -> None:
        try:
            reconcile()
        # An error must not stop the loop, because other objects still need to be reconciled.
        # `simulator` reports the error at the end.
        except Exception:
            self.faults.append(traceback.format_exc())
            print(self.faults[-1], file=sys.stderr)


@contextmanager
def simulator(kinds: Kinds) -> Iterator[tuple[Controller, ApiServer]]:
    """Start an empty cluster. At the end of the `with` block, end all processes of the cluster.

    Raises AssertionError if a process survives or if the controller's `faults` is not empty.
    """
    # The path must be short, because the paths of Ray's sockets start with it.
    base = Path(tempfile.mkdtemp(prefix="aw-", dir="/tmp"))
    controller = Controller(Objects(kinds), base)
    try:
        with running(controller.objects, controller.kubelet.logs) as server:
            controller.start()
            try:
                yield controller, server
            finally:
                controller.stop()
        alive = leftovers(controller.mark)
        kill(alive)
        assert not alive, f"the simulator left {alive} running"
        assert not controller.faults, controller.faults[0]
    finally:
        if not os.environ.get("AWARES_KEEP"):
            shutil.rmtree(base, ignore_errors=True)
