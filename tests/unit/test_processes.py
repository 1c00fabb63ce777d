"""Tests that code for stopping processes tolerates processes that have already ended."""

import subprocess
import sys

import psutil
import pytest

from awares_platform.runtime import session
from tests import processes


@pytest.fixture
def ended() -> psutil.Process:
    """Return a handle on a process that has ended."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    handle = psutil.Process(child.pid)
    child.kill()
    child.wait()
    return handle


def test_kill_and_gone_take_a_process_that_has_ended(
    ended: psutil.Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psutil, "wait_procs", lambda listed, timeout: ([], list(listed)))
    assert processes.gone({ended}, 0) == set()
    processes.kill([ended])


def test_the_session_takes_a_process_that_ends_while_it_is_stopped(
    ended: psutil.Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psutil, "wait_procs", lambda listed, timeout: ([], [ended]))
    session._stop_ray(set())
