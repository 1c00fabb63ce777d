"""Tests that a training process ends itself when a pass of a step hangs."""

import subprocess
import sys
import time

SCRIPT = """
import threading, time
from awares_platform.training.pulse import Pulse

pulse = Pulse(0.5)

def step(seconds):
    with pulse.step():
        for one in pulse.beats(seconds):
            time.sleep(one)

step([0.8])  # The first step may compile kernels.
step([0.3] * 4)
time.sleep(0.8)  # The process waits for a batch.
print("steps and waits", flush=True)
step([0.1, 30.0])
print("not reached", flush=True)
"""


def test_only_a_pass_that_hangs_ends_the_process() -> None:
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1 and time.monotonic() - started < 25
    assert done.stdout == "steps and waits\n"
    # The stack traces in stderr contain the function that hangs.
    assert "Timeout (0:00:00.500000)!" in done.stderr and "in step" in done.stderr
