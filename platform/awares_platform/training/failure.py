"""Which failures Ray Train may answer with a restart, and what Ray hides behind its exceptions.

A lost worker, a full disk or a store that was away are worth another try from the newest
checkpoint. A wrong setting, unreadable data or a policy that does not fit would fail again in the
same way: such an error ends the run at once, with its own message.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ray.exceptions import RayTaskError
from ray.train import TrainingFailedError, UserCallback
from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError

from awares.errors import AwaresError, ConfigError, DataError, PolicyError
from awares_platform.store.errors import StoreUnavailable

FINAL = (ConfigError, DataError, PolicyError)


class FailFast(UserCallback):
    """Ends training when a worker raises a final error.

    What a callback raises is a failure of Ray Train's controller, which it never retries.
    """

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Called by Ray Train's controller after workers have failed."""
        for error in worker_exceptions.values():
            if isinstance(error, FINAL):
                raise error


@contextmanager
def unwrapped() -> Iterator[None]:
    """Raise what fails in the block without the wrapping of Ray and Ray Train.

    Example:
        with unwrapped():
            ray.get(actor.start.remote())  # raises PolicyError, say, as the actor raised it
    """
    try:
        yield
    except (RayTaskError, TrainingFailedError, OSError) as error:
        inner = cause(error)
        if inner is error:
            raise
        raise inner from None


def cause(error: Exception) -> Exception:
    """Return the error of a Ray task or a Ray Train worker, if `error` wraps one, else `error`.

    A task's error that is no AwaresError stays wrapped, because Ray's text has the remote
    traceback. A failure of the store inside Ray Train becomes StoreUnavailable.
    """
    inner: Exception | None = None
    if isinstance(error, RayTaskError):
        within = cause(error.cause)
        inner = within if within is not error.cause or isinstance(within, AwaresError) else None
    elif isinstance(error, OSError) and "AWS Error" in str(error):
        remedy = "check the store, then run the job again: it goes on from its last checkpoint"
        return StoreUnavailable(f"Ray Train lost the object store ({error}); {remedy}")
    elif isinstance(error, ControllerError):
        inner = error.controller_failure
    elif isinstance(error, WorkerGroupError) and error.worker_failures:
        failures = error.worker_failures.values()
        final = (failure for failure in failures if isinstance(failure, FINAL))
        inner = next(final, next(iter(failures)))
    return cause(inner) if inner else error
