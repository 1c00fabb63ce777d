"""Tests how the driver restarts a lost controller or trainer, and how guards restore versions.

Fake actors stand for the actors of Ray.
"""

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from ray.exceptions import RayTaskError

from awares.errors import PolicyError
from awares_platform.config import PlatformConfig
from awares_platform.grpo.guards import GuardTripped
from awares_platform.grpo.step_rows import StepRow
from awares_platform.grpo.supervisor import Supervisor
from awares_platform.runtime.job_lease import JobFenced
from awares_platform.store.errors import LaunchError, StoreUnavailable
from tests.unit.awares_platform.grpo.short_parts import (
    Method,
    Record,
    ShortController,
    ShortTrainer,
    Start,
    steered,
)


def finishing() -> tuple[ShortController, ShortTrainer]:
    return ShortController(range(2, 4), ended=True), ShortTrainer()


def losing_trainer() -> tuple[ShortController, ShortTrainer]:
    trainer = ShortTrainer()
    trainer.kill()
    return ShortController(range(2), ended=False), trainer


def hanging_trainer() -> tuple[ShortController, ShortTrainer]:
    return ShortController(range(2), ended=False), ShortTrainer(silent_after=1)


def losing_controller() -> tuple[ShortController, ShortTrainer]:
    controller, trainer = ShortController(range(2), ended=False), ShortTrainer()
    controller.kill()
    return controller, trainer


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (losing_trainer, "the trainer is dead: The actor died"),
        (hanging_trainer, "the trainer hangs: it gave no answer for 0.5 s"),
        (losing_controller, "the controller is dead: The actor died"),
    ],
)
def test_a_lost_part_is_started_again(
    loss: Start, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = Record(tmp_path)
    metrics, killed = steered(record, [loss, finishing], restarts=1)
    assert metrics == {"reward/mean": 3.0}
    assert record.steps[-2:] == [3, 4]
    assert [type(part).__name__ for part in killed] == ["ShortTrainer", "ShortController"] * 2
    shown = capsys.readouterr().err
    assert said in shown and "the job goes on from its last checkpoint" in shown
    assert "7 samples (1 unusable rows left out)" in shown


def test_the_warnings_of_the_parts_reach_the_console_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def warning() -> tuple[ShortController, ShortTrainer]:
        controller, trainer = ShortController(range(2), ended=False), ShortTrainer(silent_after=3)
        controller.warnings = ("rollout actor 0 is gone (killed)",)
        trainer.warnings = ("learner rank 1 is gone (killed)",)
        return controller, trainer

    steered(Record(tmp_path), [warning, finishing], restarts=1)
    shown = capsys.readouterr().err
    assert shown.count("]: rollout actor 0 is gone (killed)\n") == 1
    assert shown.count("]: learner rank 1 is gone (killed)\n") == 1


def test_a_controller_learns_which_versions_the_metrics_have(tmp_path: Path) -> None:
    rows = [{"reward/mean": 8.0}, {"validation/version": 3.0}, {"validation/version": 5.0}]
    lines = (json.dumps({"step": step, "time": 0.0, **row}) for step, row in enumerate(rows, 1))
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    controller, trainer = finishing()
    steered(Record(tmp_path), [lambda: (controller, trainer)], restarts=0)
    assert controller.reported == {3, 5}


def test_parts_that_are_lost_too_often_end_the_job(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match=r"the trainer is dead.* raise grpo\.learner_restarts"):
        steered(Record(tmp_path), [losing_trainer, losing_trainer, finishing], restarts=1)


class StoppedController(ShortController):
    """A controller whose driver gets SIGTERM after step 1. The learner still finishes step 2."""

    def __init__(self) -> None:
        super().__init__(range(2), ended=False)
        self.stopped = asyncio.Event()

    async def _record(self, written: int) -> StepRow | None:
        if written == 1 and not self.stopped.is_set():
            asyncio.get_running_loop().call_soon(sys.exit, 143)
            await self.stopped.wait()
        return await super()._record(written)

    async def _hand_over(self, claim: str, within_s: float) -> tuple[int, bool]:
        self.stopped.set()
        await asyncio.sleep(0.1)
        return 0, True


def test_the_metrics_of_steps_that_end_after_sigterm_are_written(tmp_path: Path) -> None:
    """A later job resumes after such a step, so no other job writes its metrics."""
    record = Record(tmp_path)
    with pytest.raises(SystemExit):
        steered(record, [lambda: (StoppedController(), ShortTrainer())], restarts=0)
    assert record.steps == [1, 2]


def test_an_error_of_training_is_raised_and_not_repeated(tmp_path: Path) -> None:
    wrong = RayTaskError("fit", "a traceback", PolicyError("of another model"))

    def failing() -> tuple[ShortController, ShortTrainer]:
        return ShortController(range(1), ended=True), ShortTrainer(wrong)

    with pytest.raises(PolicyError, match="of another model"):
        steered(Record(tmp_path), [failing, finishing], restarts=5)


@pytest.mark.parametrize(
    ("fewest", "without_node", "told"),
    [(None, 0, ""), (None, 1, "1 of 4"), (2, 2, ""), (2, 3, "1 of 2"), (0, 4, "")],
)
def test_missing_actors_are_told_only_below_the_fewest(
    fewest: int | None, without_node: int, told: str
) -> None:
    grpo = {"rollout_actors": 4, "rollout_actors_min": fewest, "rollout_gpus": 1}
    store = {"endpoint": "http://127.0.0.1:1"}
    config = PlatformConfig.model_validate({"grpo": grpo, "store": store})
    said = Supervisor(config, lambda: (None, None), {})._short(without_node)
    assert said == (told and f"{told} rollout actors need 1 CPU, 1 GPU")


def test_more_than_the_most_actors_are_refused_as_the_fewest() -> None:
    with pytest.raises(ValidationError, match=r"grpo\.rollout_actors_min=3 exceeds"):
        PlatformConfig.model_validate({"grpo": {"rollout_actors": 2, "rollout_actors_min": 3}})


def far(restored: list[int | None]) -> Start:
    """Return a function that makes a controller with a too large KL divergence, and a trainer.

    Call i of the controller's `restore` restores the version `restored[i]`. None restores nothing.
    """

    def start() -> tuple[ShortController, ShortTrainer]:
        controller = ShortController(range(6), ended=True)
        controller.figures, controller.restored = {"policy/kl": 9.0}, restored
        return controller, ShortTrainer()

    return start


def test_a_guard_restores_the_best_version_and_stops_the_run_after_the_last_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    guards = {"window": 1, "kl": "restore-best", "max_restores": 1}
    record = Record(tmp_path)
    with pytest.raises(
        GuardTripped, match="stopped after step 2: .*restored 1 times, and .*max_restores=1 allows"
    ):
        steered(record, [far([21, None])], restarts=0, guards=guards)
    shown = capsys.readouterr().err
    assert "step 1: the mean of policy/kl over 1 steps is 9, above" in shown
    assert "the learner goes on from version 21, the best one" in shown


def test_a_guard_cannot_restore_before_a_version_is_validated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    guards = {"window": 1, "kl": "restore-best"}
    metrics, _ = steered(Record(tmp_path), [far([None] * 7)], restarts=0, guards=guards)
    assert metrics == {"reward/mean": 5.0, "policy/kl": 9.0}
    assert "no version is validated yet, so none is restored" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((3, True), "the journal keeps 3 unfinished groups for the next job"),
        (
            RayTaskError("hand_over", "a traceback", StoreUnavailable("the store is away")),
            "not all groups, or not the learner's last step, are kept: the store is away",
        ),
        (RayTaskError("hand_over", "a traceback", JobFenced("another job")), ""),
        (None, "are kept: they take longer than 0.2 s"),
    ],
)
@pytest.mark.parametrize("within", ["the loop", "a task"])
def test_sigterm_lets_the_controller_keep_unfinished_groups(
    answer: Any,
    said: str,
    within: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Check a signal that arrives while a task runs, and one that arrives outside of all tasks."""
    monkeypatch.setattr("awares_platform.grpo.supervisor.HAND_BACK_S", 0.1)
    monkeypatch.setattr("awares_platform.grpo.supervisor.STOP_S", 0.2)
    controller = ShortController(range(2), ended=False)
    record, asked = Record(tmp_path), list[Any]()

    async def hand_over(*arguments: Any) -> tuple[int, bool]:
        asked.append(arguments)
        if isinstance(answer, Exception):
            raise answer
        return answer if answer is not None else await asyncio.Event().wait()

    def stop(step: int, values: dict[str, float]) -> None:
        record.steps.append(step)
        # The interrupted row is written again while the job stops.
        if record.steps.count(2) != 1:
            return
        if within == "a task":
            sys.exit(143)
        asyncio.get_running_loop().call_soon(sys.exit, 143)

    controller.hand_over = Method(hand_over)
    monkeypatch.setattr(record, "metrics", stop)
    with pytest.raises(SystemExit) as raised:
        steered(record, [lambda: (controller, ShortTrainer())], restarts=0)
    assert raised.value.code == 143 and asked == [("the claim", 0.1)]
    assert controller.dead.is_set()
    shown = capsys.readouterr().err
    assert said in shown if said else "kept" not in shown


class Endless:
    """A remote method that never ends. It outlives the tasks of the driver, as in Ray."""

    def remote(self, *_: Any) -> "Endless":
        return self

    def __await__(self) -> Any:
        return asyncio.Event().wait().__await__()


@pytest.mark.parametrize("attached", [True, False])
def test_sigterm_does_not_wait_for_a_learner_that_still_starts(
    attached: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("awares_platform.grpo.supervisor.STOP_S", 0.2)
    controller, trainer = ShortController(range(2), ended=False), ShortTrainer()
    record, signals = Record(tmp_path), iter([143])

    async def hand_over(*_: Any) -> tuple[int, bool]:
        return 0, attached

    controller.hand_over, trainer.fit = Method(hand_over), Endless()
    monkeypatch.setattr(record, "metrics", lambda *_: [sys.exit(code) for code in signals])
    with pytest.raises(SystemExit):
        steered(record, [lambda: (controller, trainer)], restarts=0)
    assert ("they take longer than 0.2 s" in capsys.readouterr().err) == attached


def test_a_second_sigterm_ends_the_job_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller = ShortController(range(2), ended=False)
    record, began = Record(tmp_path), time.monotonic()

    async def hand_over(*_: Any) -> tuple[int, bool]:
        asyncio.get_running_loop().call_soon(sys.exit, 143)
        return await asyncio.Event().wait()

    def stop(step: int, _: dict[str, float]) -> None:
        if step == 2:
            asyncio.get_running_loop().call_soon(sys.exit, 143)

    controller.hand_over = Method(hand_over)
    monkeypatch.setattr(record, "metrics", stop)
    with pytest.raises(SystemExit):
        steered(record, [lambda: (controller, ShortTrainer())], restarts=0)
    assert controller.dead.is_set() and time.monotonic() - began < 5
