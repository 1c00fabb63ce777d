"""Hides chosen lines of C++ libraries from the terminal.

In a block of `without_line`, C++ libraries write to a file. The lines of this file, except the
hidden ones, are printed after the block. Python's own lines appear at once.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


def separate_stderr() -> None:
    """Give sys.stderr its own descriptor, so that a redirected descriptor 2 does not affect it."""
    if sys.stderr is sys.__stderr__:
        descriptor = os.dup(sys.stderr.fileno())
        sys.stderr = os.fdopen(
            descriptor, "w", buffering=1, encoding=sys.stderr.encoding, errors=sys.stderr.errors
        )


@contextmanager
def without_line(part: str) -> Iterator[None]:
    """Hold back the lines that reach descriptor 2 in the block, and print them after the block.

    A line that contains `part` is not printed.
    """
    with tempfile.TemporaryFile() as held:
        terminal = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
            held.seek(0)
            os.write(2, b"".join(line for line in held if part.encode() not in line))
