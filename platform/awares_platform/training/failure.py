"""Decides which failures Ray Train may retry, and finds the cause behind Ray's exceptions.

After a lost worker, a full disk or an unreachable store, a restart from the newest checkpoint may
succeed. After a wrong setting, unreadable data, an unusable policy or gradients that are not
finite, a restart would fail in the same way. Such an error therefore ends the run at once. If
another job has taken the run over, the run also ends at once.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ray.exceptions import RayActorError, RayTaskError
from ray.train import TrainingFailedError, UserCallback
from ray.train.v2._internal.exceptions import WorkerHealthCheckTimeoutError
from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError

from awares.errors import AwaresError, ConfigError, DataError, Fenced, PolicyError
from awares_platform.runtime.driver import first_line

log = logging.getLogger(__name__)


class Diverged(AwaresError):
    """Raised after several consecutive optimizer steps with gradients that are not finite."""


class SkippedSteps:
    """Counts consecutive optimizer steps that are skipped because a gradient is not finite.

    After `most` consecutive skipped steps, the run fails.

    Example:
        skipped = SkippedSteps(3, "grpo")
        skipped.count(17, taken=False)  # raises Diverged at the third step in a row
    """

    def __init__(self, most: int, job: str) -> None:
        self._most, self._job = most, job
        self._row = 0

    def count(self, step: int, taken: bool, cause: str = "") -> None:
        """Count the step `step`. Raises Diverged at the `most`-th consecutive skipped step.

        The messages contain `cause`, a text about the cause of a skipped step, if it is known.
        """
        self._row = 0 if taken else self._row + 1
        known = f" ({cause})" if cause else ""
        if not taken:
            text = "step %d: a gradient is not finite%s; the weights stay as they are"
            log.warning(text, step, known)
        if self._row >= self._most:
            raise Diverged(
                f"{self._row} optimizer steps in a row, the last at step {step}, had gradients "
                f"that are not finite{known}: lower {self._job}.learning_rate or check the data, "
                "and start anew with another run.name"
            )


FINAL = (ConfigError, DataError, PolicyError, Diverged, Fenced)
"""The errors after which Ray Train must not restart the workers.

Fenced means that another job has taken the run over. A restarted learner would in turn stop the
other job's learner.
"""


class FailFast(UserCallback):
    """Ends training after an error of a type in FINAL, or if workers fail too often.

    `too_many` counts a failure, and returns whether the run must end. `worker` is the word for a
    worker in messages.

    Example:
        FailFast(FailureRate(3).count, "learner rank")
    """

    def __init__(self, too_many: Callable[[], bool], worker: str = "worker") -> None:
        self._too_many, self._worker = too_many, worker

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Raise the error that must end the training, if there is one.

        Ray Train's controller calls this method after workers have failed. The loss of a node does
        not count as a failure if it was announced.
        """
        errors = list(worker_exceptions.values())
        for error in errors:
            if isinstance(error, FINAL):
                raise error
        if errors and not any(map(_reclaimed, errors)) and self._too_many():
            raise errors[0]
        for rank, error in worker_exceptions.items():
            log.warning(
                "%s %d is gone (%s); training goes on from its last checkpoint",
                self._worker,
                rank,
                _reason(error),
            )


def _of_ray(error: Exception) -> Exception:
    """Return the error that made Ray Train's health check fail, or else `error` itself."""
    return getattr(error, "health_check_failure", error)


def _reason(error: Exception) -> str:
    if isinstance(error, WorkerHealthCheckTimeoutError):
        return "it gave no answer within run.hang_timeout_s"
    return first_line(_of_ray(error))


def _reclaimed(error: Exception) -> bool:
    """Return whether a worker is lost because the cloud has taken its node back."""
    inner = _of_ray(error)
    return isinstance(inner, RayActorError) and inner.preempted


@contextmanager
def unwrapped() -> Iterator[None]:
    """Run the block. If the block fails, raise its error without Ray's wrappers.

    Example:
        with unwrapped():
            ray.get(actor.start.remote())  # raises the actor's own error, such as PolicyError
    """
    try:
        yield
    except (RayTaskError, TrainingFailedError) as error:
        inner = cause(error)
        if inner is error:
            raise
        raise inner from None


def cause(error: Exception) -> Exception:
    """Return the error of the Ray task or Ray Train worker that `error` wraps, or else `error`.

    A task's error stays wrapped unless it is an AwaresError, because the wrapper has the remote
    traceback.
    """
    inner: Exception | None = None
    if isinstance(error, RayTaskError):
        within = cause(error.cause)
        inner = within if within is not error.cause or isinstance(within, AwaresError) else None
    elif isinstance(error, ControllerError):
        inner = error.controller_failure
    elif isinstance(error, WorkerGroupError) and error.worker_failures:
        failures = error.worker_failures.values()
        final = (failure for failure in failures if isinstance(failure, FINAL))
        inner = next(final, next(iter(failures)))
    return cause(inner) if inner else error
