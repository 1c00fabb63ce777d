"""Sample the memory of all processes that a job starts."""

import math
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

EVERY_S = 0.05
STEP = 4_000_000


def anonymous_bytes(pid: int) -> int:
    """Return the resident anonymous memory of a process in bytes.

    Pages of files do not count, because the kernel can drop them.
    """
    for line in Path(f"/proc/{pid}/status").read_text("ascii").splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    return 0


@dataclass(slots=True)
class ProcessMemory:
    """The samples of a process's anonymous memory, as pairs of a time in seconds and bytes.

    The times are those of time.time. A sample is left out if it differs from its neighbour before
    it by less than STEP bytes.

    Example:
        ProcessMemory("VLLM::EngineCore", [(1.75e9, 500_000_000), (1.75e9 + 2, 9_000_000_000)])
    """

    name: str
    samples: list[tuple[float, int]]

    def add(self, memory: int) -> None:
        """Add a sample that was taken now."""
        if abs(memory - self.samples[-1][1]) >= STEP:
            self.samples.append((time.time(), memory))

    def peak(self, start: float = 0.0, end: float = math.inf) -> int:
        """Return the largest number of bytes between two times."""
        before = [memory for at, memory in self.samples if at < start][-1:]
        return max([*before, *(memory for at, memory in self.samples if start <= at <= end)])


class Sampler:
    """Samples the descendants of the process `root` in a thread, until `close`.

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
        """Add new descendants, and read all names again, because processes change theirs."""
        with suppress(psutil.Error, OSError):
            for child in psutil.Process(self._root).children(recursive=True):
                with suppress(psutil.Error, OSError):
                    name = " ".join(child.cmdline())[:80]
                    first = [(time.time(), anonymous_bytes(child.pid))]
                    known = self.seen.setdefault(child.pid, ProcessMemory(name, first))
                    known.name = name or known.name
