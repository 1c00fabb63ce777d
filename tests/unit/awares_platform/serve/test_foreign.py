"""Tests that every log line of Ray Serve is written to a file of the run.

The terminal shows only warnings and errors.
"""

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray._private import worker

from awares_platform.serve.foreign import ServeLog

CONTROLLER = (
    "Task ServeController.graceful_shutdown failed. There are infinite retries remaining, so the "
    "task will be retried. Error: The actor is dead because it was killed by `ray.kill`."
)
MEMORY = "A worker was killed, because the node is low on memory."


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    # A session of an earlier test may have hidden the lines of other processes.
    monkeypatch.setattr(worker, "_worker_logs_enabled", True)
    logger, shown = logging.getLogger("ray.serve"), worker.print_to_stdstream
    before = list(logger.handlers)
    # `import ray.serve` installs a handler that would not write to the stderr of this test. The
    # handler below replaces it.
    logger.handlers = [logging.StreamHandler(_Stderr())]
    logger.setLevel(logging.INFO)
    ServeLog(tmp_path / "run" / "serve.log").take_over()
    yield tmp_path / "run" / "serve.log"
    logger.handlers, worker.print_to_stdstream = before, shown


class _Stderr:
    """A stream that writes to the current sys.stderr. Pytest replaces sys.stderr for each test."""

    def write(self, text: str) -> None:
        sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


def raylet(*lines: str) -> None:
    worker.print_to_stdstream(
        {"lines": list(lines), "pid": "raylet", "is_err": False}, ignore_prefix=False
    )


def test_steps_of_serve_are_kept_and_warnings_are_shown(
    kept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = logging.getLogger("ray.serve")
    logger.info('Started Serve in namespace "serve".')
    logger.info("Deleting app ['awares']")
    logger.warning("The replica is unhealthy.")
    assert [line.split(": ", 1)[1] for line in kept.read_text().splitlines()] == [
        'Started Serve in namespace "serve".',
        "Deleting app ['awares']",
        "The replica is unhealthy.",
    ]
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1 and "The replica is unhealthy." in shown.err


def test_the_end_of_the_controller_is_kept_and_other_messages_are_shown(
    kept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raylet(CONTROLLER)
    raylet(MEMORY, CONTROLLER)
    shown = capsys.readouterr().out
    assert MEMORY in shown and "ServeController" not in shown
    assert kept.read_text().count(CONTROLLER) == 2


def test_a_second_endpoint_of_the_process_has_its_own_file(kept: Path, tmp_path: Path) -> None:
    logging.getLogger("ray.serve").info("first")
    ServeLog(tmp_path / "second.log").take_over()
    logging.getLogger("ray.serve").info("second")
    raylet(CONTROLLER)
    assert "second" not in kept.read_text() and "first" in kept.read_text()
    second = (tmp_path / "second.log").read_text()
    assert "second" in second and second.count(CONTROLLER) == 1
