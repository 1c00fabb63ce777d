"""Runs the ranks of a process group as processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

LIMIT_S = 300
ROOT = Path(__file__).parents[2]


def run_ranks(module: str, ranks: int, *arguments: str, **variables: str) -> None:
    """Run a module of this directory as one process per rank, and wait until all have ended.

    Raises AssertionError with the output of all ranks if a rank fails.
    """
    shared = {**os.environ, "WORLD_SIZE": str(ranks), "OMP_NUM_THREADS": "1", **variables}
    processes = [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                f"tests.integration.{module}",
                str(rank),
                str(ranks),
                *arguments,
            ],
            cwd=ROOT,
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(ranks)
    ]
    said = [process.communicate(timeout=LIMIT_S)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * ranks, "\n".join(said)
