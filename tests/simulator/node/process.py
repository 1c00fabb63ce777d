"""A container's process: started in a session of its own, ended by its id together with all that came from it."""

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

MARK = (
    "AWARES_SIMULATOR"  # in the environment of whatever a simulator starts: how leftovers are found
)
_GONE_S = 5.0
_PR_SET_PDEATHSIG = 1


class Process:
    """One running or ended process. It must be started by a thread that lives as long as the process may: it dies with that thread."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], directory: Path, log: Path
    ) -> None:
        self._family: set[psutil.Process] = set()
        prctl = ctypes.CDLL(None, use_errno=True).prctl
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                cwd=directory,
                start_new_session=True,
                preexec_fn=lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGTERM),
            )

    @property
    def status(self) -> int | None:
        """Its exit status, None while it runs."""
        return self._popen.poll()

    def terminate(self) -> None:
        """SIGTERM to the process alone; it tells its children."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self._family |= set(psutil.Process(self._popen.pid).children(recursive=True))
        self._popen.terminate()

    def wait(self, deadline: float) -> None:
        """Wait for the end of it and of its children; kill what is still there at `deadline`, by time.monotonic()."""
        try:
            self._popen.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            with contextlib.suppress(psutil.NoSuchProcess):
                self._family |= set(psutil.Process(self._popen.pid).children(recursive=True))
            self._popen.kill()
            self._popen.wait()
        _, alive = psutil.wait_procs(self._family, timeout=max(0.1, deadline - time.monotonic()))
        for process in alive:
            process.kill()
        psutil.wait_procs(alive, timeout=_GONE_S)


def leftovers(mark: str) -> list[psutil.Process]:
    """Every live process on the machine that the simulator `mark` started, directly or not."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            marked = (
                process.environ().get(MARK) == mark or f"/{mark}/" in process.cwd()
            )  # a title may have overwritten the environment
            if marked and process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found
