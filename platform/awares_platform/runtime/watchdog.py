"""Lets a small child process kill its parent, a process of Ray Data, if the parent hangs.

    Ray Data's process --beat--> child --SIGKILL after `within_s` without a beat--> the process

Ray Data replaces a dead process, but waits without limit for a stopped one. The driver cannot ping
the processes of Ray Data.
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
"""The number of signs of life that the watched process sends within the time limit."""
_SLICES = 20


@contextmanager
def watchdog(within_s: float) -> Iterator[None]:
    """Start a child process that kills this process if this process is stopped in the block.

    The child acts after `within_s` seconds without a sign of life from this process.

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
    """Kill the parent, whose id is `process`, if no byte arrives on stdin for `within_s` seconds.

    Return when stdin is closed. The function counts short waits, not seconds, so nothing is killed
    after a pause of the whole machine.
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
