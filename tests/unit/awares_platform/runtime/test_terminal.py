"""Tests the redirection of stderr, which is descriptor 2.

The tests use a separate process, because pytest redirects its own descriptor 2.
"""

import subprocess
import sys

WRITER = """
import os, sys
from awares_platform.runtime.terminal import separate_stderr, without_line
separate_stderr()
print("before", file=sys.stderr)
try:
    with without_line("expected"):
        os.write(2, b"an expected line\\nan error\\n")
        print("at once", file=sys.stderr)
        raise SystemExit(3)
finally:
    os.write(2, b"after, with an expected line\\n")
"""


def test_only_the_named_line_is_dropped_and_only_in_the_block() -> None:
    done = subprocess.run([sys.executable, "-c", WRITER], capture_output=True, text=True)
    assert done.stderr.splitlines() == [
        "before", "at once", "an error", "after, with an expected line",
    ]  # fmt: skip
    assert done.returncode == 3
