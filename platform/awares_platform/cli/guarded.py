"""Runs a command of `awares` and returns its exit status."""

import os
import signal
import sys
from collections.abc import Callable

from awares.errors import AwaresError

_AGAIN = {
    "import": "goes on where it stopped",
    "curate": "keeps the finished shards",
    "sft": "goes on from its last checkpoint",
    "grpo": "goes on from its last checkpoint and keeps the finished groups",
    "quickstart": "goes on with the unfinished job",
}
"""What an interrupted command does when it is run again. All other commands begin anew."""


def guarded(name: str, execute: Callable[[], None]) -> int:
    """Run a command and return its exit status.

    - 0 means success.
    - 2 means a user error (AwaresError). With AWARES_TRACEBACK set, the error is raised.
    - 130 means Ctrl-C, and 143 means SIGTERM.
    """
    from awares_platform.runtime import logs, terminal

    terminal.separate_stderr()
    logs.configure()
    try:
        execute()
    except (KeyboardInterrupt, SystemExit) as end:
        status = end.code if isinstance(end, SystemExit) else 128 + signal.SIGINT
        if status not in (128 + signal.SIGINT, 128 + signal.SIGTERM):
            raise
        message = (
            f"awares {name}: interrupted; everything it started has stopped. "
            f"If you run it again, it {_AGAIN.get(name, 'begins anew')}."
        )
        print(message, file=sys.stderr)
        return int(status)
    except Exception as error:
        cause = _user_error(error)
        if cause is None or "AWARES_TRACEBACK" in os.environ:
            raise
        print(f"awares {name}: {cause}", file=sys.stderr)
        return 2
    return 0


def _user_error(error: BaseException | None) -> AwaresError | None:
    """Return the AwaresError behind `error`, or None.

    The function follows the chain of causes from `error` on, and returns the first AwaresError,
    because the outermost one explains the fault best.
    """
    while error is not None:
        wrapped = getattr(error, "cause", None)
        # Skip Ray's wrapper. It is also an AwaresError, but its text contains a traceback.
        if isinstance(error, AwaresError) and not isinstance(wrapped, AwaresError):
            return error
        inner = wrapped or error.__cause__
        error = inner if isinstance(inner, BaseException) else None
    return None
