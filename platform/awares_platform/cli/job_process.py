"""Runs a job in a separate process, which uses the Ray cluster and the store of the open session.

The calling process shows the progress of the job, and writes the job's output to a log file.
"""

import logging
import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from awares_platform.cli.pace import Pace
from awares_platform.config import PlatformConfig
from awares_platform.store.errors import LaunchError

log = logging.getLogger(__name__)

STOP_S = 30.0
"""Seconds between SIGTERM and SIGKILL for a job that does not stop."""
BEAT_S = 10.0
"""The last progress note is shown again after this many seconds without a new one."""
TAIL_LINES = 15
_PROGRESS = re.compile(r"^(?P<job>\w+) \[ *\d+ s\]: (?P<note>.*)$")


def run_job(job: str, config: PlatformConfig, directory: Path, pace: Pace) -> None:
    """Run `awares <job>` in a separate process, with this session's Ray cluster and store.

    Write the output of the job to <directory>/<job>.log. Raises LaunchError if the job fails. The
    error quotes the end of the log.
    """
    directory.mkdir(parents=True, exist_ok=True)
    setup = directory / "setup.json"
    setup.write_text(config.model_dump_json(indent=1), "utf-8")
    pace.start(job)
    kept = directory / f"{job}.log"
    with _process(job, setup) as process:
        assert process.stdout is not None, "the process's output is a pipe"
        for note in _notes(process.stdout, kept):
            pace.show(job, note)
        status = process.wait()
    if status:
        tail = kept.read_text("utf-8").splitlines()[-TAIL_LINES:]
        raise LaunchError(
            "\n".join([f"{job} failed with status {status}; the end of {kept}:", *tail])
        )
    pace.finish(job)


def _notes(output: IO[str], kept: Path) -> Iterator[str]:
    """Copy a job's output to the log file `kept`, and yield the progress notes in the output.

    Yield the last note again whenever no new note comes for `BEAT_S` seconds.
    """
    said: queue.SimpleQueue[str] = queue.SimpleQueue()
    thread = threading.Thread(target=_listen, args=(output, kept, said), daemon=True)
    thread.start()
    note = "starting"
    while thread.is_alive() or not said.empty():
        with suppress(queue.Empty):
            note = said.get(timeout=BEAT_S) or note
        yield note
    thread.join()


def _listen(output: IO[str], kept: Path, said: queue.SimpleQueue[str]) -> None:
    """Copy a job's output to `kept`, and put each progress note into the queue `said`.

    After the end of the output, put an empty note, which wakes `_notes`.
    """
    with kept.open("a", encoding="utf-8") as log_file:
        for line in output:
            log_file.write(line)
            log_file.flush()
            if match := _PROGRESS.match(line.rstrip()):
                said.put(match["note"])
    said.put("")


@contextmanager
def _process(job: str, setup: Path) -> Iterator[subprocess.Popen[str]]:
    """Run the job in its own process group, and end the whole group after the block.

    In its own group, the job does not receive Ctrl-C. The parent process does, and stops the job.
    """
    import ray

    code = "from awares_platform.cli.main import main; main()"
    address = ray.get_runtime_context().gcs_address
    process = subprocess.Popen(
        [sys.executable, "-c", code, job, "--config", str(setup)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace", start_new_session=True,
        env={**os.environ, "RAY_ADDRESS": address, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    try:
        yield process
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[str]) -> None:
    """Stop the job with SIGTERM, then kill the remaining processes of the job's group.

    A second Ctrl-C kills the group at once.
    """
    try:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        log.warning("process %d did not stop within %g s and is killed", process.pid, STOP_S)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
