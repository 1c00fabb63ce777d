"""Tests the doctor's checks of a node's disks, shared memory, GPUs and clock."""

import http.server
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path

import pytest

from awares_platform.cli.doctor import machine
from awares_platform.cli.doctor.clock import check_clock
from awares_platform.config.store import StoreConfig
from awares_platform.store import ObjectStore

MOUNTED = """
mount -t tmpfs -o {options} tmpfs "$0" && cd "$0" && {before} && cd / && exec "$1" -c "
import sys
from pathlib import Path
from awares_platform.cli.doctor.machine import check_disks, check_shared_memory
print(check_disks({{'cache': Path(sys.argv[1])}}, 0.5, 'here')[0])
print(check_shared_memory('here', Path(sys.argv[1]))[0])
" "$0"
"""


def on_a_mount(directory: Path, options: str, before: str = "true") -> str:
    """Mount a small file system on `directory`, and return the findings on it as text.

    The shell command `before` runs in the file system before the checks.
    """
    command = ["unshare", "-rm", "sh", "-c", MOUNTED.format(options=options, before=before)]
    try:
        done = subprocess.run(
            [*command, str(directory), sys.executable], capture_output=True, text=True
        )
    except FileNotFoundError:
        pytest.skip("there is no unshare")
    if done.returncode:
        pytest.skip(f"this user cannot mount: {done.stderr[-200:]}")
    return done.stdout


def test_a_full_disk_fails(tmp_path: Path) -> None:
    found = on_a_mount(tmp_path, "size=1m")
    assert "status='fail'" in found
    assert f"the cache {tmp_path} cannot be written: No space left on device" in found


def test_a_read_only_disk_fails(tmp_path: Path) -> None:
    found = on_a_mount(tmp_path, "ro")
    assert f"the cache {tmp_path} cannot be written: Read-only file system" in found


def test_a_small_disk_is_a_warning_that_names_the_needed_space(tmp_path: Path) -> None:
    disk, memory = on_a_mount(tmp_path, "size=1100m").splitlines()
    assert "status='warn'" in disk and f"Give {tmp_path} 2 GiB" in disk
    assert "status='pass'" in memory
    disk, memory = on_a_mount(tmp_path, "size=100m").splitlines()
    assert "status='fail'" in disk
    assert "status='fail'" in memory and "Raise shm" in memory


def test_full_shared_memory_fails(tmp_path: Path) -> None:
    _, memory = on_a_mount(tmp_path, "size=1100m", "head -c 1000M /dev/zero > full").splitlines()
    assert "status='fail'" in memory and "of which 0.1 are free" in memory
    assert f"Stop the process that fills {tmp_path}" in memory


def test_a_place_that_is_a_file_fails(tmp_path: Path) -> None:
    place = tmp_path / "file"
    place.touch()
    [found] = machine.check_disks({"cache": place}, None, "here")
    assert found.status == "fail" and str(place) in found.found


def test_a_setup_without_gpus_skips_them_and_a_missing_gpu_fails() -> None:
    [skipped] = machine.check_gpus(0, "here")
    assert skipped.status == "skip"
    [found] = machine.check_gpus(64, "here")
    assert found.status == "fail" and "of 64 GPUs" in found.found and "driver" in found.remedy


class Dated(http.server.BaseHTTPRequestHandler):
    """A handler that denies every request.

    The server's `date` is the Date header of the replies, or "" for replies without this header.
    """

    def do_GET(self) -> None:
        self.send_response_only(403)
        if self.server.date:
            self.send_header("Date", self.server.date)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def dated(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ObjectStore]]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Dated)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def start(date: str) -> ObjectStore:
        server.date = date
        endpoint = f"http://127.0.0.1:{server.server_port}"
        return ObjectStore.from_config(StoreConfig(url="s3://awares/x", endpoint=endpoint))

    yield start
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("ahead", "status", "side"),
    [
        (0, "pass", "agrees"),
        (20, "warn", "20 s behind"),
        (-20, "warn", "20 s ahead of"),
        (3600, "fail", "s behind"),
    ],
)
def test_a_wrong_clock_is_found(
    dated: Callable[[str], ObjectStore], ahead: float, status: str, side: str
) -> None:
    """Check the finding if the store's clock is `ahead` seconds ahead of this node's clock."""
    store = dated(formatdate(time.time() + ahead, usegmt=True))
    [found] = check_clock(store, "here")
    assert found.status == status
    assert side.split()[-1] in found.found
    assert bool(found.remedy) == (status != "pass")


def test_without_a_date_or_a_reply_the_clock_is_skipped(
    dated: Callable[[str], ObjectStore],
) -> None:
    assert check_clock(dated(""), "here")[0].status == "skip"
    closed = StoreConfig(url="s3://awares/x", endpoint="http://127.0.0.1:9")
    assert check_clock(ObjectStore.from_config(closed), "here")[0].status == "skip"
