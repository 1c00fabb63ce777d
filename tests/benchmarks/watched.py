"""Runs a command, and measures the memory and the CPU time of its processes."""

import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from awares_platform.cli.cpu_time import CpuTimes

_INTERVAL_S = 2.0
_TAIL = 2000


@dataclass(frozen=True, slots=True)
class Watched:
    """The measurements of a command that has ended.

    Example:
        Watched(1763800000.0, 140.2, peak_gib=3.1, cpu_s={"engine": 50.2})
    """

    started: float
    """Unix time in seconds."""
    seconds: float
    """The duration."""
    peak_gib: float
    """The largest memory of the process and its descendants. Shared memory counts once."""
    cpu_s: Mapping[str, float]
    """CPU seconds for each kind of process, such as "engine"."""


def watch(command: Sequence[str], environment: Mapping[str, str], log: Path) -> Watched:
    """Run the command to its end, and write the command's output to `log`.

    Raises RuntimeError with the end of the log if the command fails.
    """
    started = time.time()
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command], stdout=output, stderr=output, env={**os.environ, **environment}
        )
    watched = psutil.Process(process.pid)
    times, peak, ended = CpuTimes(watched), 0.0, threading.Event()

    def sample() -> None:
        nonlocal peak
        while not ended.wait(_INTERVAL_S):
            times.sample()
            peak = max(peak, memory(watched))

    sampler = threading.Thread(target=sample, daemon=True)
    sampler.start()
    try:
        status = process.wait()
    finally:
        ended.set()
        sampler.join()
        if process.poll() is None:
            process.terminate()
            process.wait(60)
    if status:
        raise RuntimeError(f"{command} failed with {status}; {log}: {log.read_text()[-_TAIL:]}")
    return Watched(started, time.time() - started, peak / 2**30, times.seconds())


def memory(root: psutil.Process) -> float:
    """Return the memory of a process and its descendants in bytes. Shared memory counts once."""
    total = 0
    try:
        tree = [root, *root.children(recursive=True)]
    except psutil.Error:
        return 0
    for process in tree:
        try:
            total += process.memory_full_info().pss
        except psutil.Error:
            continue  # The process has ended.
    return total
