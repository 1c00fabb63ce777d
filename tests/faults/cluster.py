"""Runs a Ray cluster of two nodes on this machine. The second node can be killed and replaced.

The first node runs the driver, the controller and the trainer. The second node runs the rollout
actor and the learner.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import ray.util

from awares_platform.runtime.ports import free_port
from tests.processes import descendants, family, gone, kill

LABEL = "awares/group"
_START_S = 60.0
_FIND = """
import sys
from ray._raylet import GcsClient

nodes = GcsClient(sys.argv[1]).get_all_node_info()
print(*(key.hex() for key, one in nodes.items() if one.node_manager_address == sys.argv[2]))
"""
"""A program that prints a node's id. Its arguments are the addresses of Ray and of the node."""


class RayCluster:
    """Starts and ends the nodes. `address` is the value of RAY_ADDRESS for a job on the cluster.

    Example:
        with cluster(environment) as nodes:
            nodes.raylet().kill()
            nodes.add_node()
    """

    def __init__(self, environment: dict[str, str], directory: Path) -> None:
        self._environment, self._directory = environment, directory
        self._port = free_port()
        self.address = f"{ray.util.get_node_ip_address()}:{self._port}"
        self._nodes: list[psutil.Process] = []

    def start(self) -> None:
        """Start the head node and one other node."""
        self._start_head()
        self.add_node()

    def _start_head(self, *options: str) -> None:
        self._start(
            "head",
            "--head",
            f"--port={self._port}",
            f"--ray-client-server-port={free_port()}",
            "--include-dashboard=false",
            f"--temp-dir={self._directory}",
            *options,
        )

    def _start(self, group: str, *options: str) -> None:
        # KubeRay starts Ray in such a shell, and Kubernetes sends its signals to this shell.
        command = ["/bin/bash", "-c", 'ulimit -n 65536; "$0" start "$@"']
        command.append(str(Path(sys.executable).with_name("ray")))
        fixed = (
            "--block",
            "--num-cpus=8",
            "--dashboard-agent-listen-port=0",
            "--min-worker-port=0",
            "--max-worker-port=0",
            f"--object-store-memory={200 * 2**20}",
            "--disable-usage-stats",
            f"--labels={LABEL}={group}",
        )
        with tempfile.TemporaryFile("w+") as said:
            started = subprocess.Popen(
                [*command, *fixed, *options],
                env=self._environment,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
            self._nodes.append(psutil.Process(started.pid))
            deadline = time.monotonic() + _START_S
            while not _raylets(self._nodes[-1]):
                if started.poll() is not None or time.monotonic() > deadline:
                    said.seek(0)
                    raise RuntimeError(f"Ray did not start: {said.read()}")
                time.sleep(0.1)

    def add_node(self) -> None:
        """Start a further node for the rollout actor and the learner."""
        # A driver uses the node that has the driver's own IP address. This must be the head node,
        # so each further node gets another address.
        address = f"--node-ip-address=127.0.0.{len(self._nodes) + 1}"
        self._start("spot", f"--address={self.address}", address)

    def notify(self, seconds: int) -> None:
        """Tell Ray that the cloud will take the newest node back in `seconds` seconds."""
        find = [sys.executable, "-c", _FIND, self.address, f"127.0.0.{len(self._nodes)}"]
        node = subprocess.check_output(find, env=self._environment, text=True).strip()
        self.take_back(node, seconds)

    def take_back(self, node: str, seconds: int) -> None:
        """Tell Ray that the cloud will take back the node with the id `node` in `seconds` s."""
        command = [str(Path(sys.executable).with_name("ray")), "drain-node"]
        options = [
            f"--address={self.address}",
            f"--node-id={node}",
            "--reason=DRAIN_NODE_REASON_PREEMPTION",
            "--reason-message=a test",
            f"--deadline-remaining-seconds={seconds}",
        ]
        subprocess.run(
            [*command, *options],
            env=self._environment,
            check=True,
            stdout=subprocess.DEVNULL,
        )

    def delete_node(self) -> psutil.Process:
        """Send SIGTERM to the newest node, as Kubernetes does to a deleted pod. Return its process.

        The process is `ray start`, because the shell that starts it becomes this process.
        """
        self._nodes[-1].terminate()
        return self._nodes[-1]

    def raylet(self) -> psutil.Process:
        """Return the raylet (Ray's main process) of the newest node."""
        [found] = _raylets(self._nodes[-1])
        return found

    def roots(self) -> list[int]:
        """Return the process id of `ray start` for each node that still runs.

        A node whose raylet is stopped does not count, although an old learner may still run there.
        """
        return [node.pid for node in self._nodes if node.is_running() and _serves(node)]

    def stop(self) -> None:
        """End every process of the cluster."""
        every = {one for node in self._nodes if node.is_running() for one in family(node)}
        for node in self._nodes:
            if node.is_running():
                node.terminate()
        kill(gone(every, within_s=15))


def _raylets(node: psutil.Process) -> list[psutil.Process]:
    return descendants(lambda command: command.split(" ")[0].endswith("/raylet"), node.pid)


def _serves(node: psutil.Process) -> bool:
    return any(one.status() != psutil.STATUS_STOPPED for one in _raylets(node))


@contextmanager
def cluster(environment: dict[str, str]) -> Iterator[RayCluster]:
    """Run a cluster during the block. `environment` has the environment variables of the nodes."""
    directory = Path(f"/tmp/ray-faults-{os.getpid()}")
    nodes = RayCluster(environment, directory)
    try:
        nodes.start()
        yield nodes
    finally:
        nodes.stop()
        shutil.rmtree(directory, ignore_errors=True)
