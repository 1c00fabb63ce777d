"""Injects one fault into the running job, ends the fault, and waits for the next step."""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

from tests.faults.cluster import RayCluster
from tests.faults.faults import PROCESSES, MatrixFault
from tests.faults.job import GrpoJob
from tests.faults.outcome import Struck, telling
from tests.integration.fault_rules import Faults
from tests.processes import descendants, family, gone, kill

_GONE_S = 120.0
_FILL_BYTES = 2**20


class Strike:
    """Injects one fault into a job each time it is called.

    `faults` makes requests to the store fail. `disk` is the directory that a fault may fill. The
    job regularly saves a checkpoint after every `every` steps.

    Example:
        struck = Strike(job, nodes, faults, disk, every=10)(MATRIX[0])
    """

    def __init__(
        self, job: GrpoJob, nodes: RayCluster, faults: Faults, disk: Path, every: int
    ) -> None:
        self._job, self._nodes, self._faults, self._disk = job, nodes, faults, disk
        self._every = every

    def __call__(self, fault: MatrixFault) -> Struck:
        """Strike with `fault`, and wait until the job has named it and published two versions.

        One version is not enough, because its step may have started before the strike.
        """
        hit = {
            "process": self._process,
            "node": self._node,
            "notice": self._notice,
            "pod": self._pod,
            "driver": self._driver,
            "store": self._store,
            "disk": self._full,
        }[fault.part]
        version, lines, struck_at = self._job.version(), len(self._job.said), time.monotonic()
        failed, gone_s = "", None
        try:
            gone_s = hit(fault)
            until = struck_at + fault.seconds + fault.limit_s
            self._wait_for_line(fault.told, lines, until)
            self._job.wait_for_version(self._job.version() + 2, until - time.monotonic())
        except (TimeoutError, AssertionError) as error:
            failed = str(error)
        return Struck(
            name=fault.name,
            version=version,
            limit_s=fault.limit_s,
            gone_s=gone_s,
            step_s=time.monotonic() - struck_at - fault.seconds,
            told=telling(fault.told, self._job.said[lines:]),
            failed=failed,
        )

    def _wait_for_line(self, pattern: str, first: int, until: float) -> None:
        """Wait until a line matches `pattern`. The job's first `first` lines do not count.

        Raises TimeoutError if the job ends first, or if no line matches by the time `until`.
        """
        while not telling(pattern, self._job.said[first:]):
            if time.monotonic() > until or self._job.process.poll() is not None:
                raise TimeoutError("the job did not name the fault")
            time.sleep(0.1)

    def _process(self, fault: MatrixFault) -> float:
        """Send the signal, and return the seconds until the process is gone."""
        start = PROCESSES[fault.victim]
        found = [
            one
            for root in self._nodes.roots()
            for one in descendants(lambda command: command.startswith(start), root)
        ]
        assert found, f"no {fault.victim} runs"
        found[0].send_signal(fault.signal)
        return _until_gone(found[0], fault.victim)

    def _node(self, fault: MatrixFault) -> None:
        """Strike the raylet, and add a node as an autoscaler does."""
        raylet = self._nodes.raylet()
        raylet.send_signal(fault.signal)
        self._nodes.add_node()

    def _notice(self, fault: MatrixFault) -> None:
        """Announce the loss of a node, wait `fault.seconds` seconds, and then kill its raylet.

        Raises AssertionError unless the job has saved a checkpoint besides the regular ones.
        """
        self._nodes.notify(int(fault.seconds))
        # Count the seconds from here, because `notify` itself takes some seconds.
        until = time.monotonic() + fault.seconds
        saved = self._saves(lambda: time.monotonic() > until)
        self._node(fault)
        assert saved, "no checkpoint was saved after the notice"

    def _pod(self, fault: MatrixFault) -> float:
        """Delete the pod of the node, add another node, and return the seconds until the pod ends.

        Raises AssertionError unless the job has saved a checkpoint besides the regular ones.
        """
        started, pod = time.monotonic(), self._nodes.delete_node()
        self._nodes.add_node()
        saved = self._saves(lambda: not gone([pod], 0))
        assert saved, "no checkpoint was saved while the node was drained"
        return time.monotonic() - started

    def _saves(self, over: Callable[[], bool]) -> bool:
        """Wait until `over()` is true. Return whether the job saved an extra checkpoint by then."""
        saved = False
        while not over():
            saved = saved or any(step % self._every for step in self._job.checkpoints())
            time.sleep(0.2)
        return saved

    def _driver(self, fault: MatrixFault) -> float:
        """Kill the driver, and start it again as Kubernetes does."""
        driver = psutil.Process(self._job.process.pid)
        every = family(driver)
        kill(every)
        self._job.process.wait()
        self._job.start()
        return _until_gone(driver, "driver")

    def _store(self, fault: MatrixFault) -> None:
        assert fault.reply is not None
        self._faults.on(fault=fault.reply)
        time.sleep(fault.seconds)
        self._faults.clear()

    def _full(self, fault: MatrixFault) -> None:
        """Fill the disk, and empty it after `fault.seconds` seconds."""
        filler = self._disk / "filler"
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(os.urandom(_FILL_BYTES))
        time.sleep(fault.seconds)
        filler.unlink()


def _until_gone(process: psutil.Process, name: str) -> float:
    started = time.monotonic()
    assert not gone([process], _GONE_S), f"the {name} still runs"
    return time.monotonic() - started
