"""Starts a container's process in a new session, and ends this process and its descendants."""

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from tests.processes import kill

# The simulator sets this environment variable for each process that it starts. `leftovers` finds
# processes by this variable.
MARK = "AWARES_SIMULATOR"
_GONE_S = 5.0
_PR_SET_PDEATHSIG = 1


class Process:
    """One running or ended process.

    When the thread that started the process ends, the kernel sends SIGTERM to the process.
    """

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
        """The exit status of the process, or None while the process runs."""
        return self._popen.poll()

    def terminate(self) -> None:
        """Send SIGTERM to the process. `wait` kills the children that outlive the process."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self._family |= set(psutil.Process(self._popen.pid).children(recursive=True))
        self._popen.terminate()

    def wait(self, deadline: float) -> None:
        """Wait until the process and its children end.

        Kill the processes that still run at `deadline`, a value of time.monotonic().
        """
        try:
            self._popen.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            with contextlib.suppress(psutil.NoSuchProcess):
                self._family |= set(psutil.Process(self._popen.pid).children(recursive=True))
            self._popen.kill()
            self._popen.wait()
        _, alive = psutil.wait_procs(self._family, timeout=max(0.1, deadline - time.monotonic()))
        kill(alive)
        psutil.wait_procs(alive, timeout=_GONE_S)


def leftovers(mark: str) -> list[psutil.Process]:
    """Return every live process that the simulator with this `mark` started.

    The calling process is left out.
    """
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            # A process that changes its title may overwrite its environment. The check therefore
            # also looks at the working directory.
            marked = process.environ().get(MARK) == mark or f"/{mark}/" in process.cwd()
            if marked and process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found
