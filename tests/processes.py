"""Finds, awaits and kills processes of the operating system, which may end at any moment."""

from collections.abc import Callable, Iterable
from contextlib import suppress

import psutil


def family(process: psutil.Process) -> set[psutil.Process]:
    """Return `process` and all its descendants, including processes in other Unix sessions."""
    return {process, *process.children(recursive=True)}


def descendants(runs: Callable[[str], bool], pid: int | None = None) -> list[psutil.Process]:
    """Return the descendants of the process `pid` whose command line satisfies `runs`.

    Without `pid`, return descendants of the calling process.
    """
    found = []
    for process in psutil.Process(pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if runs(" ".join(process.cmdline())):
                found.append(process)
    return found


def gone(processes: Iterable[psutil.Process], within_s: float) -> set[psutil.Process]:
    """Wait up to `within_s` seconds, and return the processes that have not ended."""
    left = set()
    for process in psutil.wait_procs(processes, within_s)[1]:
        with suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                left.add(process)
    return left


def kill(processes: Iterable[psutil.Process]) -> None:
    """Kill the processes that still run."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
