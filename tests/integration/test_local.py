"""Tests that a session starts its servers, stops all of its servers, and can join a cluster."""

import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from awares.errors import DataError
from awares_platform.config import PlatformConfig, load
from awares_platform.runtime import session as sessions
from awares_platform.store import ObjectStore
from awares_platform.store.errors import AccessDenied, LaunchError, MissingBucket, StoreUnavailable
from tests.processes import family, gone, kill

pytestmark = [pytest.mark.integration, pytest.mark.slow]
ROOT = Path(__file__).parents[2]

# This pattern matches the name of a secret-key variable, followed by a value.
SECRET = re.compile(rb"SECRET_(ACCESS_)?KEY[\"'\\]*\s*[:=]\s*[\"'\\]*\w{4,}", re.IGNORECASE)
SESSION = """
import os, sys, time, ray
sys.path[:0] = [".", "platform"]
from awares_platform.runtime import logs, session as sessions
from awares_platform.runtime.session import session
from awares_platform.config import load
from awares_platform.store import ObjectStore

@ray.remote
def work(store):
    ObjectStore.from_config(store).put("from-worker", b"1", if_none_match=True)
    usage = os.environ.get("RAY_USAGE_STATS_ENABLED")
    return os.environ["OMP_NUM_THREADS"], usage, os.nice(0)

@ray.remote
def wait():
    time.sleep(600)

@ray.remote(max_retries=0)
def die():
    os._exit(1)

logs.configure()
with session(load("jobs/configs/mini.toml", sys.argv[1:])) as config:
    print("worker", *ray.get(work.remote(config.store)), flush=True)
    print("stored", ObjectStore.from_config(config.store).get("from-worker").decode(), flush=True)
    if os.environ.get("HOLD"):
        sessions._check_sources(["ab" * 28])
        ray.wait([die.remote()])
        time.sleep(2)  # Ray's line about a dead worker follows the loss of its task.
        print("holding", flush=True)
        ray.get(wait.remote())
"""


@pytest.fixture
def config(tmp_path: Path) -> PlatformConfig:
    return load(
        ROOT / "jobs/configs/mini.toml",
        [f"run.directory={tmp_path / 'runs'}", "store.retry_budget_s=2"],
    )


@pytest.fixture
def held(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Yield a process that has opened a session and keeps the session open."""
    process = subprocess.Popen(
        [sys.executable, "-c", SESSION, f"run.directory={tmp_path / 'runs'}"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        env={**os.environ, "HOLD": "1"},
    )  # fmt: skip
    assert process.stdout
    lines = []
    try:
        while (line := process.stdout.readline()) and line != "holding\n":
            lines.append(line)
        # Ray's own lines about the dead worker must not be among the lines.
        assert lines == [f"worker 1 0 {os.nice(0)}\n", "stored 1\n"]
        yield process
    finally:
        process.kill()
        process.wait()
        for session in Path(tempfile.gettempdir()).glob(f"awares-ray-*/session_*_{process.pid}"):
            # A process that SIGKILL ends cannot delete the directory of its session.
            shutil.rmtree(session.parent, ignore_errors=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_session_leaves_nothing_running(
    held: subprocess.Popen[str], number: signal.Signals, tmp_path: Path
) -> None:
    processes = family(psutil.Process(held.pid))
    names = {process.name() for process in processes}
    assert {"weed", "raylet", "gcs_server"} <= names
    group = os.getpgid(held.pid)
    signalled = [one.name() for one in processes if os.getpgid(one.pid) == group]
    raylets = [one for one in processes if one.name() == "raylet"]
    assert len(signalled) == 1, "a signal to the group of a job must not end its servers"
    held.send_signal(number)
    if number == signal.SIGINT:
        # An impatient user presses Ctrl-C again while the session stops.
        assert not gone(raylets, within_s=20)
        held.send_signal(number)
        assert held.stderr and held.wait() == -number, held.stderr.read()
        assert not [*Path(tempfile.gettempdir()).glob(f"awares-ray-*/session_*_{held.pid}")]
    if number == signal.SIGTERM:
        assert held.stderr
        shown = held.stderr.read()
        assert held.wait() == 128 + number, shown
        assert "received" not in shown
        assert re.search(
            r"the sources of node (ab){28} are not checked: The task is not sch", shown
        )
    # If SIGKILL ends the session, Ray's agents take about a minute to end.
    assert not gone(processes, within_s=120 if number == signal.SIGKILL else 40)
    with sessions.store_session(
        load(ROOT / "jobs/configs/mini.toml", [f"run.directory={tmp_path / 'runs'}"])
    ) as config:
        assert ObjectStore.from_config(config.store).get("from-worker") == b"1"


def test_the_environment_is_as_before(config: PlatformConfig) -> None:
    before = dict(os.environ)
    with sessions.store_session(config) as resolved:
        assert resolved.store.endpoint and resolved.store.endpoint.startswith("http://127.0.0.1:")
        aws = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        assert aws == {name: before[name] for name in before if name.startswith("AWS_")}
    assert dict(os.environ) == before


def test_a_store_that_cannot_be_used_is_named_before_ray_starts(
    config: PlatformConfig, seaweed: ObjectStore, monkeypatch
) -> None:
    def start(**changes: object) -> None:
        store = seaweed.config.model_copy(update={"retry_budget_s": 1.0, **changes})
        with sessions.session(config.model_copy(update={"store": store})):
            raise AssertionError("a session began")

    monkeypatch.setattr(sessions, "_initialise", lambda *_, **__: pytest.fail("Ray was started"))
    with pytest.raises(MissingBucket):
        start(url="s3://nowhere/x")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(StoreUnavailable):
            start(endpoint=f"http://127.0.0.1:{unused.getsockname()[1]}")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(AccessDenied):
        start()


@pytest.mark.parametrize(
    ("error", "kept"), [(DataError("row 3: no image"), False), (LaunchError("no actor"), True)]
)
def test_the_logs_of_ray_are_named_unless_the_input_is_at_fault(
    error: Exception,
    kept: bool,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Check whether the session keeps Ray's directory and logs its path. The test starts no Ray."""
    monkeypatch.setattr(sessions, "_initialise", lambda *_, **__: None)
    with pytest.raises(type(error)), sessions._started(False, tmp_path):
        raise error
    assert any(tmp_path.iterdir()) is kept
    assert ("Ray's logs of the failed session" in caplog.text) is kept


def test_an_interrupted_start_of_ray_leaves_no_process_and_prints_no_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two `sleep` processes stand for processes of Ray that do not end by themselves."""
    started: list[subprocess.Popen[bytes]] = []

    def interrupt(*_: object, **__: object) -> None:
        started.extend(subprocess.Popen(["sleep", "60"]) for _ in range(2))
        raise KeyboardInterrupt

    monkeypatch.setattr(sessions, "_initialise", interrupt)
    before = time.monotonic()
    with pytest.raises(KeyboardInterrupt), sessions._started(False, tmp_path):
        raise AssertionError("a session began")
    assert [process.wait(5) for process in started] == [-signal.SIGKILL] * 2
    assert time.monotonic() - before < sessions._STOP_S
    assert "outlived Ray" not in caplog.text
    assert not any(tmp_path.iterdir())


def test_a_ray_that_does_not_start_is_one_error(
    config: PlatformConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test raises the plain Exception that `ray.init` raises on an overloaded machine."""

    def give_up(**_: object) -> None:
        raise Exception("The current node timed out during startup.")

    monkeypatch.setattr(sessions.ray, "init", give_up)
    with pytest.raises(
        LaunchError,
        match="Ray did not start on this machine .*timed out during startup.*try again",
    ):
        sessions._initialise(config, address="local")
    with pytest.raises(LaunchError, match="no Ray at 10.0.0.1:6379 .* check RAY_ADDRESS"):
        sessions._initialise(config, address="10.0.0.1:6379")


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_where_nothing_listens_is_one_error(
    scheme: str, config: PlatformConfig, seaweed: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "_CHECK_BUDGET_S", 1.0)
    monkeypatch.setattr(sessions, "_initialise", lambda *_, **__: pytest.fail("Ray was asked"))
    config = config.model_copy(update={"store": seaweed.config})
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"{scheme}127.0.0.1:{unused.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        with (
            pytest.raises(LaunchError, match=f"no Ray at {address} .*check RAY_ADDRESS"),
            sessions.session(config),
        ):
            pytest.fail("a session began")


def test_an_address_of_the_jobs_api_is_refused(
    config: PlatformConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:8265")
    with (
        pytest.raises(LaunchError, match="RAY_ADDRESS=http://127.0.0.1:8265 is a Jobs API"),
        sessions.session(config),
    ):
        pass


@dataclass(frozen=True, slots=True)
class Cluster:
    """A Ray head node with token authentication."""

    jobs: str
    """The URL of the Jobs API."""
    environment: dict[str, str]
    """The environment variables of the head node and of its clients."""
    logs: Path
    """Ray's temporary directory, which includes the logs."""

    def submit(
        self, *entrypoint: str, token: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        environment = (
            self.environment if token is None else {**self.environment, "RAY_AUTH_TOKEN": token}
        )
        command = [
            "ray",
            "job",
            "submit",
            "--address",
            self.jobs,
            "--working-dir",
            ".",
            "--",
            *entrypoint,
        ]
        return subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
        )


def free_ports(count: int) -> list[int]:
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    gcs, dashboard, client, agent = free_ports(4)
    logs = Path(f"/tmp/ray-test-{os.getpid()}")
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "HOME": str(tmp_path_factory.mktemp("home")),
        "AWS_ACCESS_KEY_ID": "of-the-clusters-own-store",
        "AWS_SECRET_ACCESS_KEY": "which-is-another",
    }
    environment.pop("RAY_ADDRESS", None)
    options = [
        "--head", "--block", "--node-ip-address=127.0.0.2", f"--port={gcs}",
        "--dashboard-host=127.0.0.2", f"--dashboard-port={dashboard}",
        f"--ray-client-server-port={client}", f"--dashboard-agent-listen-port={agent}",
        "--min-worker-port=28000", "--max-worker-port=28999", "--num-cpus=4",
        f"--object-store-memory={200 * 2**20}", f"--temp-dir={logs}", "--disable-usage-stats",
    ]  # fmt: skip
    head = subprocess.Popen(
        ["ray", "start", *options],
        env=environment,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for_port("127.0.0.2", dashboard)
        yield Cluster(f"http://127.0.0.2:{dashboard}", environment, logs)
    finally:
        processes = family(psutil.Process(head.pid))
        head.terminate()
        kill(gone(processes, within_s=20))
        shutil.rmtree(logs, ignore_errors=True)


def wait_for_port(host: str, port: int) -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex((host, port)) == 0:
                return
        time.sleep(0.5)
    raise AssertionError(f"nothing listens on {host}:{port}")


def test_a_clone_is_submitted_as_it_stands(cluster: Cluster) -> None:
    result = cluster.submit("python", "jobs/grpo.py", "--help")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "--config FILE" in result.stdout and "succeeded" in result.stdout
    wrong = cluster.submit("python", "jobs/grpo.py", "--help", token=secrets.token_hex(32))
    assert wrong.returncode != 0


def test_a_submitted_session_runs_one_source_tree_and_leaks_no_secret(cluster: Cluster) -> None:
    result = cluster.submit("python", "-c", textwrap.dedent(SESSION).strip(), "run.directory=runs")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "worker 1 0" in result.stdout and "stored 1" in result.stdout
    logs = [path for path in cluster.logs.rglob("*") if path.is_file() and "logs" in path.parts]
    assert logs and not [path for path in logs if SECRET.search(path.read_bytes())]


def test_a_user_error_of_a_submitted_job_is_in_its_log(cluster: Cluster) -> None:
    result = cluster.submit("python", "jobs/sft.py", "sft.lerning_rate=1")
    assert result.returncode != 0
    wanted = "awares sft: mini: sft.lerning_rate: no such key; the nearest is sft.learning_rate"
    assert wanted in result.stdout, result.stdout + result.stderr
