"""Lists the faults that matrix.py injects: which process or part each fault strikes, and how."""

from dataclasses import dataclass
from signal import SIGKILL, SIGSTOP, Signals
from typing import Literal

from tests.integration import fault as proxied

Part = Literal["process", "driver", "node", "notice", "pod", "store", "disk"]

PROCESSES = {
    "controller": "ray::ControllerActor",
    "trainer": "ray::TrainerActor",
    "learner": "ray::RayTrainWorker",
    "rollout actor": "ray::RolloutActor",
    "engine": "VLLM::EngineCore",
    "reward worker": "ray::RewardActor",
}
"""The beginning of each process's command line.

"controller" is the controller of this project. Ray Train's own controller runs in the trainer.
"""
KILLED = {
    "controller": r"the controller is dead: ",
    "trainer": r"the trainer is dead: ",
    "learner": r"learner rank 0 is gone \(The actor died",
    "rollout actor": r"rollout actor 0 is gone \(The actor died",
    "engine": r"rollout actor 0 is gone \(the engine failed: ",
    "reward worker": r"reward worker 0 is gone \(The actor died",
}
"""For each process, a pattern of the line by which the job reports that the process is killed."""
STOPPED = {
    "controller": r"the controller hangs: it gave no answer",
    "trainer": r"the trainer hangs: it gave no answer",
    "learner": r"learner rank 0 is gone \(it gave no answer",
    "rollout actor": r"rollout actor 0 is gone \(the actor hangs: it gave no answer",
    "engine": r"rollout actor 0 is gone \(the engine (hangs|gave no answer)",
    "reward worker": r"reward worker 0 is gone \(the reward worker hangs: it gave no answer",
}
"""For each process, a pattern of the line by which the job reports that the process hangs."""
NODE = r"(rollout actor|learner rank) 0 is gone \(.* node "
"""A pattern of the line by which the job reports a lost node."""


@dataclass(frozen=True, slots=True)
class MatrixFault:
    """A fault that strikes a running job.

    To recover, the job prints a line that matches `told`, and publishes two further versions. It
    has `seconds` + `limit_s` seconds for both.

    Example:
        MatrixFault("pod", "SIGTERM of a node, as of a deleted pod", 120, NODE),
        MatrixFault("driver", "kill -9 of the driver", 120, "taking over from ")
    """

    part: Part
    """What the fault strikes."""
    name: str
    """The text in the table."""
    limit_s: float
    told: str
    """A pattern for the line by which the job names the fault."""
    victim: str = ""
    """The process that gets `signal`, for a fault of a process."""
    signal: Signals = SIGKILL
    """The signal to the process. For a fault of a node, this process is the raylet of Ray."""
    seconds: float = 0.0
    """How long a fault of the store or disk lasts, or the time from a notice to a node's loss."""
    reply: proxied.Fault | None = None
    """What a faulty store answers."""


def _on_processes() -> list[MatrixFault]:
    return [
        MatrixFault("process", f"{word} of the {name}", limit_s, told[name], name, number)
        for word, number, limit_s, told in (
            ("kill -9", SIGKILL, 120, KILLED),
            ("SIGSTOP", SIGSTOP, 180, STOPPED),
        )
        for name in PROCESSES
    ]


def _on_the_store() -> list[MatrixFault]:
    outages = [(f"store away for {s} s", s, proxied.Reset()) for s in (5, 30, 60)]
    failing = ("500s from the store for 30 s", 30, proxied.Status(500))
    told = r"s3://\S+: no answer; retrying"
    return [
        MatrixFault("store", name, 120, told, seconds=seconds, reply=reply)
        for name, seconds, reply in (*outages, failing)
    ]


MATRIX = [
    *_on_processes(),
    MatrixFault("node", "kill -9 of a raylet", 120, NODE),
    MatrixFault("node", "SIGSTOP of a raylet", 180, NODE, signal=SIGSTOP),
    MatrixFault("notice", "notice, then kill -9 of a raylet after 20 s", 120, NODE, seconds=20),
    MatrixFault("pod", "SIGTERM of a node, as of a deleted pod", 120, NODE),
    MatrixFault("driver", "kill -9 of the driver", 120, "taking over from "),
    *_on_the_store(),
    MatrixFault("disk", "disk full for 30 s", 120, "the free space of ", seconds=30),
]
