"""Tests which checkpoints fit a run, where they are stored, and which errors end training."""

import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from awares.errors import DataError, PolicyError
from awares_platform.config.store import StoreConfig
from awares_platform.runtime.job_lease import JobFenced
from awares_platform.runtime.watch import FailureRate
from awares_platform.store.errors import StoreUnavailable
from awares_platform.training import checkpoint
from awares_platform.training.checkpoint import Saved
from awares_platform.training.failure import FailFast, cause, unwrapped
from awares_platform.weights.writer import WriterFenced

SAVED = Saved(step=50, parameters="aa", identity={"run.seed": 0}, state={})


def test_an_equal_checkpoint_fits() -> None:
    checkpoint._check(SAVED, replace(SAVED), "awares/runs/x/checkpoints/sft/step-00000050")


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (replace(SAVED, parameters="bb"), "parameters aa; this run's have bb"),
        (replace(SAVED, identity={"run.seed": 1}), "run.seed=0; this run has run.seed=1"),
    ],
)
def test_a_checkpoint_of_another_run_names_both_sides_and_what_to_do(
    wanted: Saved, message: str
) -> None:
    with pytest.raises(PolicyError, match=message) as raised:
        checkpoint._check(SAVED, wanted, "awares/runs/x/checkpoints/sft/step-00000050")
    assert "delete awares/runs/x/checkpoints/sft to start this job anew" in str(raised.value)


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b'{"step": 1}', b"\xff"])
def test_a_checkpoint_without_a_description_is_named(content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "awares.json").write_bytes(content)
    with pytest.raises(
        PolicyError,
        match="runs/x/sft/step-1 .*awares.json.* delete runs/x/sft to start this job anew",
    ):
        checkpoint._read_meta(tmp_path / "awares.json", "runs/x/sft/step-1")


def test_ray_train_writes_under_the_runs_prefix() -> None:
    store = StoreConfig(url="s3://bucket/team/mini", endpoint="http://127.0.0.1:9000")
    config = checkpoint.run_config(
        store, "r1", "sft", FailureRate(2).count, keep=3, worker="sft worker"
    )
    assert config.storage_path == "bucket/team/mini/runs/r1/checkpoints" and config.name == "sft"
    # Ray Train's own limit is off (-1), because it counts the failures of the whole run. FailFast
    # counts only the failures of the last hour.
    assert config.failure_config.max_failures == -1 and config.checkpoint_config.num_to_keep == 3


def test_final_errors_and_too_many_failures_end_training() -> None:
    fail_fast = FailFast(FailureRate(1).count)
    fail_fast.after_exception(None, {0: ConnectionResetError("peer")})
    with pytest.raises(DataError, match="no rows"):
        fail_fast.after_exception(None, {0: ConnectionResetError("peer"), 1: DataError("no rows")})
    with pytest.raises(ConnectionResetError, match="second"):
        fail_fast.after_exception(None, {0: ConnectionResetError("second")})


def test_nodes_that_the_cloud_takes_back_are_no_failures() -> None:
    from ray.exceptions import ActorDiedError
    from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

    reclaimed = ActorDiedError()
    reclaimed._preempted = True
    fail_fast = FailFast(FailureRate(0).count)
    for _ in range(3):
        fail_fast.after_exception(None, {0: WorkerHealthCheckFailedError("lost", reclaimed)})
    with pytest.raises(WorkerHealthCheckFailedError):
        fail_fast.after_exception(None, {0: WorkerHealthCheckFailedError("", ActorDiedError())})


def test_each_lost_worker_is_named_with_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    from ray.exceptions import ActorDiedError
    from ray.train.v2._internal.exceptions import (
        WorkerHealthCheckFailedError,
        WorkerHealthCheckTimeoutError,
    )

    dead = WorkerHealthCheckFailedError("A worker health check failed.", ActorDiedError())
    lost = {0: dead, 1: WorkerHealthCheckTimeoutError("hanging for 30.02 seconds")}
    FailFast(FailureRate(3).count, "learner rank").after_exception(None, lost)
    assert caplog.messages == [
        "learner rank 0 is gone (The actor died unexpectedly before finishing this task); "
        "training goes on from its last checkpoint",
        "learner rank 1 is gone (it gave no answer within run.hang_timeout_s); "
        "training goes on from its last checkpoint",
    ]


@pytest.mark.parametrize("fenced", [WriterFenced("epoch 2"), JobFenced("process 7")])
def test_a_fenced_learner_is_never_restarted(fenced: Exception) -> None:
    """Check that a learner stays stopped if another job has taken the run over.

    A restarted learner would claim the weights again, and stop the other job's learner in turn.
    """
    with pytest.raises(type(fenced)):
        FailFast(FailureRate(3).count).after_exception(None, {0: fenced})
    assert str(pickle.loads(pickle.dumps(fenced))) == str(fenced)


def test_the_cause_is_the_workers_own_error() -> None:
    from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError

    inner = PolicyError("of another model")
    assert cause(WorkerGroupError("failed", {0: ConnectionResetError(), 1: inner})) is inner
    assert cause(ControllerError(inner)) is inner
    assert cause(ControllerError(WorkerGroupError("failed", {3: inner}))) is inner
    assert cause(inner) is inner


def test_a_lost_store_is_a_store_error() -> None:
    from ray.train.v2.api.exceptions import ControllerError

    lost = StoreUnavailable("s3://b/x: unavailable for the whole retry budget")
    assert cause(ControllerError(lost)) is lost
    full = OSError(28, "No space left on device")
    assert cause(full) is full


def test_a_tasks_own_error_is_raised_without_rays_wrapping() -> None:
    from ray.exceptions import RayTaskError
    from ray.train.v2.api.exceptions import WorkerGroupError

    inner = PolicyError("of another model")
    for failure in (inner, WorkerGroupError("failed", {0: inner})):
        with pytest.raises(PolicyError) as raised, unwrapped():
            raise RayTaskError("task", "remote traceback", failure).as_instanceof_cause()
        assert raised.value is inner
    with pytest.raises(RayTaskError, match="remote traceback") as other, unwrapped():
        raise RayTaskError("task", "remote traceback", KeyError("x")).as_instanceof_cause()
    assert isinstance(other.value, KeyError)
