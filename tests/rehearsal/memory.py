"""Samples the memory of all processes that a job starts."""

import math
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

EVERY_S = 0.05
"""The number of seconds between two samples of a process."""
STEP = 4_000_000
"""The smallest change in bytes for which a sample is kept."""


def anonymous_bytes(pid: int) -> int:
    """Return the resident anonymous memory of a process in bytes.

    Memory-mapped files do not count, because the kernel can drop their pages.
    """
    for line in Path(f"/proc/{pid}/status").read_text("ascii").splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    return 0


@dataclass(slots=True)
class ProcessMemory:
    """The sampled anonymous memory of one process.

    Example:
        ProcessMemory("VLLM::EngineCore", [(1.75e9, 500_000_000), (1.75e9 + 2, 9_000_000_000)])
    """

    name: str
    """The start of the process's command line."""
    samples: list[tuple[float, int]]
    """Pairs of a Unix time in seconds and a number of bytes."""

    def add(self, memory: int) -> None:
        """Keep `memory` as a sample, unless it differs from the last sample by less than STEP."""
        if abs(memory - self.samples[-1][1]) >= STEP:
            self.samples.append((time.time(), memory))

    def peak(self, start: float = 0.0, end: float = math.inf) -> int:
        """Return the largest memory in bytes between two Unix times.

        The last sample before `start` counts, too, because it holds until the next sample.
        """
        before = [memory for at, memory in self.samples if at < start][-1:]
        return max([*before, *(memory for at, memory in self.samples if start <= at <= end)])


class Sampler:
    """Samples the memory of the descendants of the process `root` in a thread, until `close`.

    `seen` maps the id of each descendant to its samples. The process `root` has no samples.

    Example:
        sampler = Sampler(process.pid)
        process.wait()
        sampler.close()
        sampler.seen[pid].peak()
    """

    def __init__(self, root: int) -> None:
        self._root = root
        self.seen: dict[int, ProcessMemory] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        turn = 0
        while not self._over.wait(EVERY_S):
            if turn % 10 == 0:
                self._find()
            turn += 1
            for pid, process in self.seen.items():
                with suppress(OSError):
                    process.add(anonymous_bytes(pid))

    def _find(self) -> None:
        """Add new descendants, and read the names of all descendants again.

        A process can change its name. An empty name does not replace an earlier name.
        """
        with suppress(psutil.Error, OSError):
            for child in psutil.Process(self._root).children(recursive=True):
                with suppress(psutil.Error, OSError):
                    name = " ".join(child.cmdline())[:80]
                    first = [(time.time(), anonymous_bytes(child.pid))]
                    known = self.seen.setdefault(child.pid, ProcessMemory(name, first))
                    known.name = name or known.name
