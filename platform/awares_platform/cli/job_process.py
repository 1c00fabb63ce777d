"""A job as a process: started on the session's Ray and store, its progress passed on, its output kept, ended with us whatever happens."""

import logging
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TextIO

from awares_platform.config import PlatformConfig
from awares_platform.errors import LaunchError

log = logging.getLogger(__name__)

EXPECTED_S = {"curate": 90.0, "sft": 150.0, "grpo": 300.0, "evaluate": 150.0, "serve": 60.0}
"""Seconds of each job on two cores, for the first estimate; what is measured replaces them."""
STOP_S = 30.0
BEAT_S = 10.0
"""A job that says nothing for so long is shown again, with the time that has passed."""
TAIL_LINES = 15
_PROGRESS = re.compile(r"^(?P<job>\w+) \[ *\d+ s\]: (?P<note>.*)$")
_DONE = re.compile(r"^(?P<done>\d+)/(?P<total>\d+)\b")


class Pace:
    """Says which job of how many is at what, how long everything has taken, and about how long it will still take."""

    def __init__(
        self, jobs: Sequence[str], finished: Sequence[str], stream: TextIO = sys.stdout
    ) -> None:
        self._jobs = list(jobs)
        self._pending = {
            job: EXPECTED_S[job] for job in jobs if job not in finished or job == jobs[-1]
        }
        self._stream = stream
        self._began = self._started = time.monotonic()
        self._share = 0.0
        self._speed = (0.0, 0.0)  # seconds taken, seconds expected, of the jobs that ran

    def skip(self, job: str) -> None:
        """A job of an earlier run."""
        self._line(job, "finished earlier")

    def start(self, job: str) -> None:
        """A job begins."""
        self._started, self._share = time.monotonic(), 0.0
        self.show(job, "starting")

    def show(self, job: str, note: str) -> None:
        """A job says where it is; "12/80 ..." also says how far."""
        if match := _DONE.match(note):
            self._share = int(match["done"]) / max(int(match["total"]), 1)
        left = self.remaining(job, time.monotonic() - self._started)
        self._line(
            job,
            f"{note}   ({self.clock(time.monotonic() - self._began)} elapsed, about {self.clock(left)} left)",
            passing=True,
        )

    def finish(self, job: str) -> None:
        """A job is done."""
        took = time.monotonic() - self._started
        self._speed = (self._speed[0] + took, self._speed[1] + self._pending.pop(job))
        self._line(job, f"done in {self.clock(took)}")

    def remaining(self, job: str, elapsed: float) -> float:
        """Seconds until everything is done: the rest of this job by its own share, the others by this machine's speed so far."""
        speed = self._speed[0] / self._speed[1] if self._speed[1] else 1.0
        rest = max(self._pending[job] * speed - elapsed, 5.0)
        if self._share >= 0.1:
            rest = elapsed * (1 - self._share) / self._share
        return rest + sum(
            seconds * speed for other, seconds in self._pending.items() if other != job
        )

    @staticmethod
    def clock(seconds: float) -> str:
        """Minutes and seconds, such as 4:07."""
        return f"{round(seconds) // 60}:{round(seconds) % 60:02d}"

    def _line(self, job: str, text: str, passing: bool = False) -> None:
        line = f"[{self._jobs.index(job) + 1}/{len(self._jobs)}] {job:<8} {text}"
        if self._stream.isatty():
            self._stream.write(f"\r\033[K{line}" + ("" if passing else "\n"))
        else:
            self._stream.write(line + "\n")
        self._stream.flush()


def run_job(job: str, config: PlatformConfig, directory: Path, pace: Pace) -> None:
    """Run `awares <job>` in a process of its own, on this session's Ray and store.

    Its whole output goes to <directory>/<job>.log. Raises LaunchError with the end of that log when the job fails.
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
    """Copy everything to the log, and yield what the job says of its progress; its last words again when it is silent for `BEAT_S`."""
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
    """The thread that reads a job's output until it ends; an empty note then wakes the reader."""
    with kept.open("a", encoding="utf-8") as log_file:
        for line in output:
            log_file.write(line)
            log_file.flush()
            if match := _PROGRESS.match(line.rstrip()):
                said.put(match["note"])
    said.put("")


@contextmanager
def _process(job: str, setup: Path) -> Iterator[subprocess.Popen[str]]:
    """The job's process, in a group of its own so that Ctrl-C reaches it once, from here. Not left before the whole group is gone."""
    import ray

    code = "from awares_platform.cli.main import main; main()"
    address = ray.get_runtime_context().gcs_address
    process = subprocess.Popen(
        [sys.executable, "-c", code, job, "--config", str(setup)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
        env={**os.environ, "RAY_ADDRESS": address, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    try:
        yield process
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[str]) -> None:
    """Let the job unwind, then end what is left of its group, after a second Ctrl-C at once."""
    try:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        log.warning("process %d did not stop within %g s and is killed", process.pid, STOP_S)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
