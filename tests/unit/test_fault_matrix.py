"""Tests the fault matrix: when each fault strikes, which log line must report it, and the table.

The table in tests/faults/README.md shows the results of the faults.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from ray.core.generated.common_pb2 import ActorDiedErrorContext, NodeDeathInfo
from ray.exceptions import ActorDiedError, ActorUnavailableError
from ray.train.v2._internal.exceptions import WorkerHealthCheckTimeoutError

from awares_platform.runtime.watch import FailureRate
from awares_platform.training.failure import FailFast
from tests.faults.faults import KILLED, MATRIX, NODE, STOPPED
from tests.faults.matrix import PARTS, moments
from tests.faults.outcome import portable, telling
from tests.faults.table import FIGURES, table

LOST_NODE = ActorDiedErrorContext(
    actor_id=b"a" * 16,
    error_message="The actor died because its node has died. Node Id: 0c",
)
RECLAIMED_NODE = ActorDiedErrorContext(
    actor_id=b"a" * 16,
    node_death_info=NodeDeathInfo(reason=NodeDeathInfo.AUTOSCALER_DRAIN_PREEMPTED),
)
README = Path(__file__).parents[2] / "tests" / "faults" / "README.md"


def part(rewards: list[float], failed: str = "", **checks: str) -> dict[str, Any]:
    """Return the outcome of one part of the matrix: a run of the job in which one fault strikes."""
    struck = {
        "name": "kill -9 of the engine",
        "version": 12,
        "limit_s": 120,
        "gone_s": 0.2,
        "step_s": 31.4,
        "told": "rollout actor 0 is gone (a|b)",
        "failed": failed,
    }
    return {"struck": [struck], "rewards": rewards, "checks": {"lost": "", **checks}}


def write(directory: Path, **parts: dict[str, Any]) -> str:
    for name, outcome in parts.items():
        (directory / f"{name.replace('_', '-')}.json").write_text(json.dumps(outcome))
    return table(directory)


def test_each_fault_strikes_in_one_part_and_always_at_the_same_moment() -> None:
    struck = [fault for number in range(1, PARTS + 1) for fault, _, _ in moments(number)]
    assert len(struck) == len(MATRIX) == 22
    assert {fault.name for fault in struck} == {fault.name for fault in MATRIX}
    assert moments(0) == []
    assert [fault.name for fault, _, _ in moments(PARTS + 1, ["SIGSTOP of a raylet"])] == [
        "SIGSTOP of a raylet"
    ]
    assert [(fault.name, after) for fault, after, _ in moments(2)][:2] == [
        ("SIGSTOP of a raylet", 3),
        ("SIGTERM of a node, as of a deleted pod", 9),
    ]


def test_the_table_has_a_row_for_each_fault_and_the_checks_of_each_run(tmp_path: Path) -> None:
    calm, near, far = [8.0, 9.0] * 20, [8.1, 9.0] * 20, [5.0, 6.0] * 20
    text = write(
        tmp_path,
        part_0={"struck": [], "rewards": calm, "checks": {}},
        part_1=part(near),
        part_2=part(far, failed="no step within 120 s", lost="prompts [3]"),
    )
    rows = [line for line in text.splitlines() if line.startswith("| ")][1:]
    engine = "| 12 | kill -9 of the engine | 0 | 31 |"
    assert rows == [
        f"| 1 {engine} 120, yes | rollout actor 0 is gone (a/b) |",
        f"| 2 {engine} no: no step within 120 s | rollout actor 0 is gone (a/b) |",
    ]
    checks = text.replace("\n  ", " ").split("\n- Run")[1:]
    assert "no prompt is lost" in checks[0] and "+0.050 is within" in checks[0]
    assert "lost: prompts [3]" in checks[1] and "-3.000 is outside" in checks[1]


def test_the_committed_table_is_made_from_the_committed_results() -> None:
    assert README.read_text() == table(FIGURES)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (
            'File "/opt/x/platform/awares_platform/a.py", line 1',
            'File "platform/awares_platform/a.py"',
        ),
        ('File "/opt/lib/site-packages/torch/b.py", line 2', 'File "torch/b.py"'),
        ("the free space of /tmp/faults-a1/runs in GiB", "the free space of .../runs in GiB"),
        ("s3://awares/faults/runs/v1.parquet: no answer", "s3://awares/faults/runs/v1.parquet"),
    ],
)
def test_results_hold_no_directory_of_this_machine(text: str, wanted: str) -> None:
    assert portable(text).startswith(wanted)


@pytest.mark.parametrize(
    ("error", "pattern"),
    [
        (ActorDiedError(), KILLED["learner"]),
        (WorkerHealthCheckTimeoutError("hanging for 30.02 s"), STOPPED["learner"]),
        (ActorDiedError(LOST_NODE), NODE),
        (ActorDiedError(RECLAIMED_NODE), NODE),
        (ActorUnavailableError("recvmsg: reset by peer", b"a" * 16), NODE),
    ],
)
def test_a_lost_learner_is_named_as_the_matrix_expects(
    error: Exception, pattern: str, caplog: pytest.LogCaptureFixture
) -> None:
    FailFast(FailureRate(3).count, "learner rank").after_exception(None, {0: error})
    [line] = caplog.messages
    assert telling(pattern, [f"grpo [   3 s]: {line}"]) == line
