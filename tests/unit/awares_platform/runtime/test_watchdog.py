"""Tests that a watchdog kills a stopped process, and no other process."""

import signal
import subprocess
import sys
import time

WITHIN_S = 1.0
PROGRAM = """
import time
from awares_platform.runtime.watchdog import watchdog

with watchdog({within_s}):
    print("works", flush=True)
    {work}
print("done", flush=True)
"""


def started(work: str) -> subprocess.Popen[str]:
    program = PROGRAM.format(work=work, within_s=WITHIN_S)
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "works\n"
    return process


def test_work_that_takes_longer_than_the_limit_ends_unharmed() -> None:
    said, _ = started(f"time.sleep({2 * WITHIN_S})").communicate(timeout=20)
    assert said == "done\n"


def test_a_stopped_process_is_killed() -> None:
    process = started("time.sleep(60)")
    before = time.monotonic()
    process.send_signal(signal.SIGSTOP)
    assert process.wait(20) == -signal.SIGKILL
    assert time.monotonic() - before >= 0.8 * WITHIN_S


def test_an_error_of_the_work_passes_at_once() -> None:
    before = time.monotonic()
    said, _ = started("raise KeyError").communicate(timeout=20)
    assert said == "" and time.monotonic() - before < 2 * WITHIN_S


def test_the_watchdog_of_a_killed_process_ends() -> None:
    process = started("time.sleep(60)")
    process.kill()
    # The watchdog has the same stdout, so `communicate` returns only after the watchdog has ended.
    said, _ = process.communicate(timeout=20)
    assert said == ""
