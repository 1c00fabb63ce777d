"""Kills a stopped process, from a small process beside it.

    Ray Data's actor or task --beat--> watchdog --SIGKILL after `within_s` without a beat--> it

Ray Data owns its actors and tasks, so the driver cannot ping them. Ray Data starts them again if
their process dies, but it waits without limit for a process that is stopped.
"""

import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_BEATS = 10
"""The number of beats within the time limit."""
_SLICES = 20


@contextmanager
def watchdog(within_s: float) -> Iterator[None]:
    """Run the block. If this process gives no sign of life for `within_s` seconds, kill it.

    A thread gives the signs of life, so the block itself may take any time.

    Example:
        with watchdog(config.run.hang_timeout_s):
            answers = asyncio.run(answer(samples))
    """
    command = [sys.executable, "-I", "-S", __file__, str(os.getpid()), str(within_s)]
    done = threading.Event()
    with subprocess.Popen(command, stdin=subprocess.PIPE) as beside:
        assert beside.stdin is not None
        arguments = (beside.stdin.fileno(), within_s / _BEATS, done)
        beating = threading.Thread(target=_beat, args=arguments, daemon=True)
        beating.start()
        try:
            yield
        finally:
            done.set()
            beating.join()


def _beat(pipe: int, every_s: float, done: threading.Event) -> None:
    with suppress(BrokenPipeError):
        while not done.wait(every_s):
            os.write(pipe, b".")


def wait_and_kill(process: int, within_s: float) -> None:
    """Kill the parent `process` when stdin has no byte for `within_s` seconds.

    Return when stdin is closed. The time is counted in short waits. If the machine or this process
    itself is stopped, this counts as one wait.
    """
    silent = 0
    while silent < _SLICES:
        if not select.select([0], [], [], within_s / _SLICES)[0]:
            silent += 1
        elif os.read(0, 4096):
            silent = 0
        else:
            return
    if os.getppid() == process:
        print(f"process {process} hangs and is killed (run.hang_timeout_s)", file=sys.stderr)
        os.kill(process, signal.SIGKILL)


if __name__ == "__main__":
    wait_and_kill(int(sys.argv[1]), float(sys.argv[2]))
