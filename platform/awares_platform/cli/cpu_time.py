"""Measures the CPU seconds of this process and of its descendants, by kind of process.

Each line of this tree ends with the kind of its processes:

    quickstart --+-- awares curate, sft, grpo or evaluate            driver
                 +-- weed                                            store
                 +-- raylet, gcs_server, idle workers, agents        ray
                       +-- Answerer, RolloutActor, Evaluator         actor
                       |     +-- VLLM::EngineCore, its forkserver    engine
                       +-- ControllerActor                           controller
                       +-- TrainerActor, RayTrainWorker              learner

A store or a Ray cluster that someone else has started does not count.
"""

import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import psutil

KINDS = ("driver", "engine", "actor", "controller", "learner", "store", "ray")
"""The kinds of processes, in the order in which the report lists them."""
INTERVAL_S = 1.0
"""Seconds between two samples of the CPU times of all processes."""
_WORKERS = {
    "Answerer": "actor",
    "label_shard": "actor",
    "RolloutActor": "actor",
    "Evaluator": "actor",
    "ServeReplica": "actor",
    "ControllerActor": "controller",
    "TrainerActor": "learner",
    "TrainController": "learner",
    "RayTrainWorker": "learner",
}
_PROGRAMS = {
    "VLLM::": "engine",
    "multiprocessing.forkserver": "engine",
    "/weed ": "store",
    "-packages/ray/": "ray",
}


@dataclass(slots=True)
class ProcessTime:
    """The CPU time of one process.

    Example:
        ProcessTime("engine", before=0.0, seconds=50.2)
    """

    kind: str
    """One of KINDS."""
    before: float
    """CPU seconds before the measurement began."""
    seconds: float
    """All CPU seconds until the last sample of the process, including `before`."""


class CpuTimes:
    """Sums up the CPU seconds of the process `root` and of its descendants, by kind.

    The CPU time between a process's last sample and its end is not counted.

    Example:
        times = CpuTimes(psutil.Process())
        times.sample()
        times.seconds()  # {"driver": 3.1, "engine": 50.2}
    """

    def __init__(self, root: psutil.Process) -> None:
        self._root = root
        self._usage: dict[psutil.Process, ProcessTime] = {}
        self.sample()
        for usage in self._usage.values():
            usage.before = usage.seconds

    def sample(self) -> None:
        """Read the CPU seconds of all processes that run now."""
        kinds: dict[int, str] = {}
        # In this list a parent precedes its children, so a child can inherit its parent's kind.
        for process in [self._root, *self._root.children(recursive=True)]:
            try:
                title, parent = " ".join(process.cmdline()), process.ppid()
                times = process.cpu_times()
            except psutil.Error:
                continue  # The process has ended.
            usage = self._usage.setdefault(process, ProcessTime("", 0.0, 0.0))
            usage.seconds = times.user + times.system
            own = kind_of(title)
            if own == "ray" and usage.kind in _WORKERS.values():
                own = usage.kind  # An idle worker of Ray keeps the kind of its last task.
            usage.kind = own or usage.kind or kinds.get(parent, "driver")
            kinds[process.pid] = usage.kind

    def seconds(self) -> dict[str, float]:
        """Return the CPU seconds since the start of the measurement, by kind of process."""
        sums: defaultdict[str, float] = defaultdict(float)
        for usage in self._usage.values():
            sums[usage.kind] += usage.seconds - usage.before
        return {kind: round(sums[kind], 1) for kind in KINDS if round(sums[kind], 1)}


def kind_of(title: str) -> str:
    """Return the kind of a process, or "" if its title (or command line) does not tell the kind.

    Example:
        kind_of("ray::RolloutActor.rollout")  # "actor"
    """
    if title.startswith("ray::"):
        return next((kind for word, kind in _WORKERS.items() if word in title), "ray")
    return next((kind for word, kind in _PROGRAMS.items() if word in title), "")


@contextmanager
def measured(into: dict[str, float]) -> Iterator[None]:
    """Measure this process and its descendants during the block, and add the seconds to `into`.

    `into` maps a kind of process to CPU seconds.
    """
    times, ended = CpuTimes(psutil.Process()), threading.Event()

    def watch() -> None:
        while not ended.wait(INTERVAL_S):
            times.sample()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        times.sample()
        into |= total(into, times.seconds())


def total(first: Mapping[str, float], second: Mapping[str, float]) -> dict[str, float]:
    """Return the sum of two measurements for each kind of process."""
    kinds = [kind for kind in KINDS if kind in first or kind in second]
    return {kind: round(first.get(kind, 0.0) + second.get(kind, 0.0), 1) for kind in kinds}
