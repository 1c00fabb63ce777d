"""Tests that the local cache of policies deletes what killed downloads have left."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from awares_platform.training.source import installed

HANGS = """
import sys, time
from awares_platform.training.source import installed

def write(directory):
    (directory / "model.safetensors").write_bytes(b"half of the weights")
    print("written", flush=True)
    time.sleep(60)

installed("a", write)
"""


@pytest.fixture
def policies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the directory of an empty cache of policies."""
    monkeypatch.setenv("AWARES_CACHE", str(tmp_path))
    return tmp_path / "policies"


def kill_a_download(policies: Path) -> Path:
    """Kill a process that downloads a policy. Return the directory that the process leaves."""
    before = {*policies.glob("*")}
    with subprocess.Popen([sys.executable, "-c", HANGS], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"written\n"
        process.send_signal(signal.SIGKILL)
    [left] = {*policies.glob("*")} - before
    return left


def age(path: Path, hours: float) -> None:
    """Make `path` look as if it was last changed `hours` ago."""
    then = time.time() - hours * 3600
    os.utime(path, (then, then))


def write(directory: Path) -> None:
    (directory / "model.safetensors").write_bytes(b"all weights")


def test_an_install_deletes_what_a_killed_download_left_a_day_ago(policies: Path) -> None:
    """The downloads `recent` and `live` may still run, so an install does not delete them.

    A download that writes a large file changes the file's time, but not the directory's.
    """
    old = kill_a_download(policies)
    recent, live = (Path(shutil.copytree(old, f"{old}-{name}")) for name in ("recent", "live"))
    for path, hours in ((old, 25), (recent, 23)):
        for file in (*path.iterdir(), path):
            age(file, hours)
    age(live, 48)
    target = installed("b", write)
    assert {*policies.iterdir()} == {recent, live, target}
    assert (target / "model.safetensors").read_bytes() == b"all weights"


def test_an_install_deletes_the_staging_directories_of_older_releases(policies: Path) -> None:
    """Releases before the prefix .staged- left directories with the names of `tempfile`."""
    left = kill_a_download(policies)
    old, recent = (Path(tempfile.mkdtemp(dir=policies)) for _ in range(2))
    for directory, hours in ((old, 25), (recent, 23)):
        shutil.copytree(left, directory, dirs_exist_ok=True)
        for path in (*directory.iterdir(), directory):
            age(path, hours)
    target = installed("b", write)
    assert {*policies.iterdir()} == {left, recent, target}


def test_an_install_keeps_old_policies_and_directories_of_others(policies: Path) -> None:
    target = installed("a", write)
    (policies / "notes").mkdir()
    for path in (target / "model.safetensors", target, policies / "notes"):
        age(path, 1000)
    installed("b", write)
    assert {path.name for path in policies.iterdir()} == {"a", "b", "notes"}
