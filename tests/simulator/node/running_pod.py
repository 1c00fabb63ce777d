"""Runs one pod as processes of this machine. Each pod has its own loopback address.

Init containers run one after another. Then all containers run at once.
"""

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.simulator.api.objects import Body, Objects
from tests.simulator.network.addresses import TWIN_OFFSET
from tests.simulator.node import environment, image, probe, volumes
from tests.simulator.node.process import MARK, Process

# This annotation of a Pod maps declared ports to actual ports, as in "8265=12345,8000=12346".
PORTS = "simulator/ports"
_PROBE_S = 3.0
_LONGEST_BACKOFF_S = 30.0


@dataclass(frozen=True, slots=True)
class Place:
    """The loopback address, the directories and the helpers that one pod uses.

    Example:
        Place(
            "127.80.3.4", Path("/tmp/aw-x/4"), Path("/tmp/aw-x/claims"), "aw-x",
            lambda text, namespace: text, addresses.twin,
        )
    """

    address: str
    root: Path
    """The pod's own directory."""
    claims: Path
    """The directory with the volumes of all PersistentVolumeClaims. All pods share it."""
    mark: str
    """Identifies the processes of the simulator."""
    names: Callable[[str, str], str]
    """Takes a text and a namespace, and replaces names of Services in the text with addresses."""
    twin: Callable[[], int]
    """Returns a free port p such that port p + 10000 is free too."""


class RunningPod:
    """One pod. The constructor starts the pod.

    If a ConfigMap or Secret is missing, the constructor raises NotFound before any process starts.
    """

    def __init__(self, objects: Objects, body: Body, place: Place) -> None:
        self._objects, self.body, self.place = objects, body, place
        self.uid, self.namespace = body["metadata"]["uid"], body["metadata"]["namespace"]
        shutil.rmtree(place.root, ignore_errors=True)
        place.root.mkdir(parents=True)
        self._opt = image.lay_out(place.root)
        self._places = volumes.lay_out(objects, body, place.root, place.claims)
        everything = body["spec"].get("initContainers", []) + body["spec"]["containers"]
        paths = {
            path: real
            for container in everything
            for path, real in volumes.mounted(container, self._places).items()
        }
        volumes.rewrite_files(
            body, self._places, volumes.Paths({**paths, image.HOME: self._opt}).rewrite
        )
        volumes.rewrite_files(body, self._places, self._named)
        # `resolve` raises NotFound if a container's variables need a missing Secret or ConfigMap.
        for container in everything:
            environment.resolve(objects, self._located(), container)
        self._weed: dict[str, int] = {}
        self._moved = dict(moved(body))
        for container in body["spec"]["containers"]:
            self._move(_command(container))
        self._inits = list(body["spec"].get("initContainers") or [])
        self.processes: dict[str, Process] = {}
        self.restarts, self._ready, self._probed, self._again = 0, False, 0.0, 0.0
        self.failed_init = ""
        self.advance()

    def advance(self) -> None:
        """Start the next init container, or start all containers, or restart ended containers."""
        if self.failed_init:
            return
        running = [process for process in self.processes.values() if process.status is None]
        if self._inits and not running:
            self._next_init()
        elif not self.processes:
            for container in self.body["spec"]["containers"]:
                self._start(container)
        elif self.body["spec"].get("restartPolicy", "Always") == "Always":
            self._restart()

    def _next_init(self) -> None:
        """Start the next init container. If the previous init container failed, fail the pod."""
        container = self._inits[0]
        ended = self.processes.pop(container["name"], None)
        if ended is None:
            self._start(container)
        elif ended.status:
            self.failed_init = container["name"]
        else:
            self._inits.pop(0)
            self.advance()

    def _restart(self) -> None:
        """Restart ended containers. The pauses between restarts grow up to _LONGEST_BACKOFF_S."""
        if time.monotonic() < self._again:
            return
        for container in self.body["spec"]["containers"]:
            if self.processes[container["name"]].status is not None:
                self.restarts += 1
                self._ready = False
                self._again = time.monotonic() + min(2**self.restarts, _LONGEST_BACKOFF_S)
                self._start(container)

    @property
    def phase(self) -> str:
        """The phase in the pod's status: Pending, Running, Succeeded or Failed."""
        statuses = [process.status for process in self.processes.values()]
        if self.failed_init:
            return "Failed"
        if self._inits or not statuses:
            return "Pending"
        if None in statuses or self.body["spec"].get("restartPolicy", "Always") == "Always":
            return "Running"
        return "Failed" if any(statuses) else "Succeeded"

    @property
    def ready(self) -> bool:
        """True if every container runs and passes its readiness probe.

        While the pod is ready, the probes run at most once per _PROBE_S seconds.
        """
        if self.phase != "Running" or any(
            process.status is not None for process in self.processes.values()
        ):
            return False
        if not self._ready or time.monotonic() - self._probed > _PROBE_S:
            self._probed = time.monotonic()
            self._ready = all(
                self._passes(container) for container in self.body["spec"]["containers"]
            )
        return self._ready

    def port(self, name: Any) -> int:
        """Return the actual number of a port. `name` is the port's name or declared number."""
        declared = [
            port
            for container in self.body["spec"]["containers"]
            for port in container.get("ports") or []
        ]
        number = next(
            (
                port["containerPort"]
                for port in declared
                if name in (port.get("name"), port["containerPort"])
            ),
            name,
        )
        return self._moved.get(int(number), int(number))

    def terminate(self) -> None:
        """Send SIGTERM to every container."""
        for process in self.processes.values():
            process.terminate()

    def wait(self, deadline: float) -> None:
        """Wait until every container ends. Then remove the socket files of SeaweedFS.

        Kill the processes that still run at `deadline`, a value of time.monotonic().
        """
        for process in self.processes.values():
            process.wait(deadline)
        for port in self._weed.values():
            for number in (port, port + TWIN_OFFSET):
                for path in Path("/tmp").glob(f"seaweedfs-*-{number}.sock"):
                    path.unlink(missing_ok=True)

    def log(self) -> str:
        """Return the output of all containers, one container after another."""
        return "".join(
            path.read_text("utf-8", "replace") for path in sorted(self.place.root.glob("*.log"))
        )

    def text(self, text: str, container: Body) -> str:
        """Replace mount paths in `text` with directories, and names of Services with addresses."""
        return self._named(self._paths(container).rewrite(text))

    def _move(self, command: list[str]) -> None:
        """Choose free ports if the command runs SeaweedFS."""
        ports = image.weed_ports(command, self.place.twin)
        self._weed |= ports
        self._moved |= {image.declared(command, flag): port for flag, port in ports.items()}

    def _passes(self, container: Body) -> bool:
        check = container.get("readinessProbe")
        return check is None or probe.passes(
            check,
            self.place.address,
            self.port,
            lambda command: self._invocation(container, command),
        )

    def _start(self, container: Body) -> None:
        invocation = self._invocation(container, _command(container))
        self.processes[container["name"]] = Process(
            *invocation, self.place.root / f"{container['name']}.log"
        )

    def _invocation(
        self, container: Body, command: Sequence[str]
    ) -> tuple[list[str], dict[str, str], Path]:
        """Return the command, environment and directory for a process in `container`."""
        given = environment.resolve(self._objects, self._located(), container)
        variables = {name: self.text(value, container) for name, value in given.items()}
        own = {MARK: self.place.mark, "SIMULATOR_TEMP": str(self.place.root / "r")}
        variables = {**image.variables(), "HOME": str(self.place.root), **variables, **own}
        variables.setdefault(
            "TMPDIR", str(self._paths(container).real.get("/tmp", self.place.root))
        )
        here = [
            self._own(self.text(argument, container))
            for argument in image.arguments(list(command), self._weed)
        ]
        directory = self._paths(container).rewrite(container.get("workingDir") or image.HOME)
        return (
            [environment.expand(argument, variables) for argument in here],
            variables,
            Path(directory),
        )

    def _own(self, argument: str) -> str:
        """Replace 0.0.0.0 (every address) with the pod's loopback address."""
        return argument.replace("0.0.0.0", self.place.address)

    def _paths(self, container: Body) -> volumes.Paths:
        mounts = volumes.mounted(container, self._places)
        return volumes.Paths(
            {path: real for path, real in mounts.items() if path != "/dev/shm"}
            | {image.HOME: self._opt}
        )

    def _named(self, text: str) -> str:
        return self.place.names(text, self.namespace)

    def _located(self) -> Body:
        return {
            **self.body,
            "status": {
                "podIP": self.place.address,
                "hostIP": self.place.address,
                "podIPs": [{"ip": self.place.address}],
            },
        }


def _command(container: Body) -> list[str]:
    command = container.get("command") or image.entrypoint(container.get("image", ""))
    return [*command, *container.get("args", [])]


def moved(body: Body) -> Mapping[int, int]:
    """Parse the pod's annotation PORTS into a map from declared ports to actual ports.

    A port that is missing in this map keeps its declared number.
    """
    text = (body["metadata"].get("annotations") or {}).get(PORTS, "")
    return {
        int(port): int(real)
        for port, _, real in (pair.partition("=") for pair in text.split(",") if pair)
    }
