"""Runs a job as an `awares` process, which starts its own Ray and SeaweedFS.

While no job runs, `disk` starts SeaweedFS on the same directory, so that a test can use the store.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil
import pytest

from awares_platform.config import PlatformConfig
from awares_platform.store import ObjectStore, seaweed


@contextmanager
def disk(config: PlatformConfig) -> Iterator[ObjectStore]:
    """Start SeaweedFS on the run's `.store` directory, and yield a client of this store."""
    with (
        pytest.MonkeyPatch.context() as environment,
        seaweed.serve(config.run.directory / ".store", config.store.bucket) as server,
    ):
        environment.setenv("AWS_ACCESS_KEY_ID", server.access_key)
        environment.setenv("AWS_SECRET_ACCESS_KEY", server.secret_key)
        yield ObjectStore.from_config(config.store.model_copy(update={"endpoint": server.endpoint}))


def start(job: str, config: PlatformConfig, *overrides: str) -> subprocess.Popen[str]:
    """Start `awares <job>` with the given configuration and overrides, in its own process group."""
    setup = config.run.directory / "setup.json"
    setup.write_text(config.model_dump_json())
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    command = [
        sys.executable,
        "-c",
        "from awares_platform.cli.main import main; main()",
        job,
        "--config",
        str(setup),
        *overrides,
    ]
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )


def kill_store(process: subprocess.Popen[str]) -> None:
    """Kill the SeaweedFS of a running job with SIGKILL."""
    children = psutil.Process(process.pid).children(recursive=True)
    [weed] = [child for child in children if child.name() == "weed"]
    weed.kill()


def last_words(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Wait for the job. Return its exit status, its whole output and the last line of stderr.

    Raises AssertionError if stderr has a traceback.
    """
    shown, said = process.communicate(timeout=600)
    assert "Traceback" not in said, said
    return process.returncode, shown + said, (said.strip().splitlines() or [""])[-1]


def wait_for(
    condition: Callable[[], bool],
    process: subprocess.Popen[str] | None = None,
    timeout_s: float = 600,
) -> None:
    """Wait until `condition` holds. Fail if `process` ends first, or after `timeout_s` seconds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if process is not None and process.poll() is not None:
            ended = f"the job ended before the condition held:\n{''.join(process.communicate())}"
            raise AssertionError(ended)
        assert time.monotonic() < deadline, "the condition did not hold in time"
        time.sleep(0.05)
