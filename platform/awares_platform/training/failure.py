"""Which failures Ray Train may answer with a restart, and what it hides behind its own exceptions.

A lost worker, a full disk or a store that was away are worth another try from the newest checkpoint. A wrong setting, unreadable data
or a policy that does not fit would fail the same way again: those end the run at once, with their own message.
"""

from typing import Any

from ray.train import UserCallback
from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError

from awares.errors import ConfigError, DataError, PolicyError
from awares_platform.errors import StoreUnavailable

FINAL = (ConfigError, DataError, PolicyError)


class FailFast(UserCallback):
    """Ends training when a worker raised a final error. (Raising in a callback is a controller failure, which Ray Train never retries.)"""

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Called by Ray Train's controller after workers have failed."""
        for error in worker_exceptions.values():
            if isinstance(error, FINAL):
                raise error


def cause(error: Exception) -> Exception:
    """What went wrong inside: the worker's own exception where there is one, else `error`; an S3 failure of Ray Train's as ours."""
    inner: Exception | None = None
    if isinstance(error, OSError) and "AWS Error" in str(error):
        remedy = "check the store, then run the job again: it goes on from its last checkpoint"
        return StoreUnavailable(f"Ray Train lost the object store ({error}); {remedy}")
    if isinstance(error, ControllerError):
        inner = error.controller_failure
    elif isinstance(error, WorkerGroupError) and error.worker_failures:
        failures = error.worker_failures.values()
        inner = next(
            (failure for failure in failures if isinstance(failure, FINAL)), next(iter(failures))
        )
    return cause(inner) if inner else error
