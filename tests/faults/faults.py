"""Defines the faults of the matrix: which process or part each fault strikes, and how."""

from dataclasses import dataclass
from signal import SIGKILL, SIGSTOP, Signals
from typing import Literal

from tests.integration import fault as proxied

Part = Literal["process", "driver", "node", "notice", "store", "disk"]

PROCESSES = {
    "controller": "ray::ControllerActor",
    "trainer": "ray::TrainerActor",
    "learner": "ray::RayTrainWorker",
    "rollout actor": "ray::RolloutActor",
    "engine": "VLLM::EngineCore",
    "reward worker": "ray::RewardActor",
}
"""The beginning of each process's command line. Ray Train's controller runs in the trainer."""


@dataclass(frozen=True, slots=True)
class MatrixFault:
    """A fault that strikes a running job.

    `part` is what the fault strikes. `name` is the text in the table. A process gets `signal`. A
    fault of the store or of the disk lasts `seconds`, and requests to the store get `reply`. A
    notice comes `seconds` before its node is lost. A step must follow within `limit_s` seconds
    after the fault, or after its end.

    Example:
        MatrixFault("process", "kill -9 of the engine", 120, signal=SIGKILL, victim="engine")
    """

    part: Part
    name: str
    limit_s: float
    victim: str = ""
    signal: Signals = SIGKILL
    seconds: float = 0.0
    reply: proxied.Fault | None = None


def _on_processes() -> list[MatrixFault]:
    return [
        MatrixFault("process", f"{word} of the {name}", limit_s, victim=name, signal=number)
        for word, number, limit_s in (
            ("kill -9", SIGKILL, 120),
            ("SIGSTOP", SIGSTOP, 180),
        )
        for name in PROCESSES
    ]


def _on_the_store() -> list[MatrixFault]:
    outages = [
        MatrixFault("store", f"store away for {s} s", 120, seconds=s, reply=proxied.Reset())
        for s in (5, 30, 60)
    ]
    failing = MatrixFault(
        "store", "500s from the store for 30 s", 120, seconds=30, reply=proxied.Status(500)
    )
    return [*outages, failing]


MATRIX = [
    *_on_processes(),
    MatrixFault("node", "kill -9 of a raylet", 120),
    MatrixFault("node", "SIGSTOP of a raylet", 180, signal=SIGSTOP),
    MatrixFault("notice", "notice, then kill -9 of a raylet after 20 s", 120, seconds=20),
    MatrixFault("driver", "kill -9 of the driver", 120),
    *_on_the_store(),
    MatrixFault("disk", "disk full for 30 s", 120, seconds=30),
]
