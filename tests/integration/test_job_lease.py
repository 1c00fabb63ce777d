"""Tests the lease of a job with a real SeaweedFS and two real processes."""

import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from awares_platform.config import PlatformConfig
from awares_platform.config.run import RunConfig
from awares_platform.curate import job as curate
from awares_platform.evaluate import job as evaluate
from awares_platform.grpo import job as grpo
from awares_platform.runtime.job_lease import (
    JobFenced,
    JobRefused,
    LeaseClaim,
    hold,
    require_held,
    run_lease,
    serve_leases,
)
from awares_platform.runtime.lease_holder import LeaseHolder
from awares_platform.serve.job import in_use
from awares_platform.sft import job as sft
from awares_platform.store import ObjectStore
from tests.integration.fault import Status
from tests.integration.fault_rules import Faults
from tests.integration.lease_holding_process import HELD
from tests.integration.proxied_object import statuses
from tests.integration.standalone import wait_for

pytestmark = pytest.mark.integration
KEY = run_lease("mini", "grpo")
BEAT_S, EXPIRY_S = 0.2, 3.0
LONG_S = 25.0
"""An expiry that a living process never reaches, even on a busy machine."""
SCRIPT = Path(__file__).with_name("lease_holding_process.py")

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(store: ObjectStore) -> Iterator[Start]:
    """Return a function that starts a process that takes the lease.

    At the end of the test, kill all started processes.
    """
    started: list[subprocess.Popen[str]] = []

    def run(expiry_s: float = EXPIRY_S) -> subprocess.Popen[str]:
        settings = store.config.model_dump_json()
        command = [sys.executable, str(SCRIPT), settings, KEY, str(BEAT_S), str(expiry_s)]
        started.append(
            subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
            )
        )
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.communicate()


def held(process: subprocess.Popen[str]) -> LeaseClaim:
    """Wait until the process holds the lease, and return its claim."""
    assert process.stdout is not None
    word, token = process.stdout.readline().split()
    assert word == HELD
    return LeaseClaim(KEY, token)


def ours(store: ObjectStore, expiry_s: float = EXPIRY_S) -> LeaseClaim:
    """Take and release the lease in this process, which acts as a second job. Return its claim."""
    with hold(store, KEY, "grpo", beat_s=BEAT_S, expiry_s=expiry_s) as claim:
        require_held(store, claim)
    return claim


def test_the_second_job_is_refused_at_once_while_the_first_lives(
    store: ObjectStore, start: Start
) -> None:
    first = start()
    claim = held(first)
    began = time.monotonic()
    named = (
        rf"`awares grpo`, process {first.pid} on {socket.gethostname()}, since \d{{4}}-\d\d-\d\d"
    )
    with pytest.raises(JobRefused, match=rf"runs/mini/grpo is in use by {named}.*run\.name"):
        ours(store, LONG_S)
    assert time.monotonic() - began < LONG_S / 2
    second = start(LONG_S)
    shown, said = second.communicate(timeout=60)
    assert (second.returncode, shown) == (2, "") and re.search(f"awares grpo: .*{named}", said)
    require_held(store, claim)


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_a_job_that_ends_gives_the_lease_back(
    store: ObjectStore, start: Start, end: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    first = start()
    held(first)
    first.send_signal(end)
    assert first.wait(timeout=20) == 128 + end
    assert not list(store.list("runs/"))
    ours(store)
    assert not list(store.list("runs/"))
    assert capsys.readouterr().err == ""


def test_the_lease_of_a_killed_job_is_taken_over_at_once_on_the_same_host(
    store: ObjectStore, start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    first = start()
    claim = held(first)
    first.kill()  # The process stays a zombie, because nobody has waited for it.
    began = time.monotonic()
    with hold(store, KEY, "grpo", beat_s=BEAT_S, expiry_s=LONG_S):
        assert time.monotonic() - began < LONG_S / 2
        with pytest.raises(JobFenced, match="has taken it over"):
            require_held(store, claim)
    said = capsys.readouterr().err
    assert re.search(rf"taking over from `awares grpo`, process {first.pid} .*is gone", said), said


def test_a_stopped_job_loses_the_lease_and_ends_by_itself_when_it_goes_on(
    store: ObjectStore, start: Start
) -> None:
    first = start()
    held(first)
    first.send_signal(signal.SIGSTOP)
    second = start()
    began = time.monotonic()
    claim = held(second)
    assert EXPIRY_S <= time.monotonic() - began
    first.send_signal(signal.SIGCONT)
    _, said = first.communicate(timeout=20)
    assert first.returncode == 2
    fenced = (
        r"awares grpo: .*/runs/mini/grpo: this job has stopped, because `awares grpo`, process "
        rf"{second.pid} on .*, since .* has taken it over\n"
    )
    assert re.search(fenced, said), said
    require_held(store, claim)


def foreign(store: ObjectStore, **changes: object) -> LeaseHolder:
    """Write the lease of a job on another host, and return the holder of this lease."""
    holder = replace(LeaseHolder.here("grpo"), host="node-3", place="another boot", **changes)
    store.put(KEY, holder.to_bytes(7))
    return holder


def test_a_silent_job_of_another_host_expires_by_the_observers_clock(
    store: ObjectStore, capsys: pytest.CaptureFixture[str]
) -> None:
    """The other host's clock is wrong: its lease says that it began in the year 2999."""
    since = "2999-01-01 00:00:00 UTC"
    foreign(store, pid=1, since=since)
    began = time.monotonic()
    ours(store)
    assert EXPIRY_S <= time.monotonic() - began < LONG_S
    said = capsys.readouterr().err
    assert f"waiting up to {EXPIRY_S:g} s for a sign of life of `awares grpo`, process 1" in said
    assert f"process 1 on node-3, since {since}: it is silent for {EXPIRY_S:g} s" in said


def test_a_job_of_another_host_that_renews_its_lease_is_respected(store: ObjectStore) -> None:
    holder = foreign(store)
    timer = threading.Timer(EXPIRY_S / 2, lambda: store.put(KEY, holder.to_bytes(8)))
    timer.start()
    with pytest.raises(JobRefused, match="on node-3"):
        ours(store, LONG_S)
    timer.join()


@pytest.mark.parametrize("damaged", [b"", b"{}", b"[1]", b'{"beat": 1}'])
def test_a_damaged_lease_is_taken_over_after_the_expiry(store: ObjectStore, damaged: bytes) -> None:
    store.put(KEY, damaged)
    with hold(store, KEY, "grpo", beat_s=BEAT_S, expiry_s=0.5) as claim:
        require_held(store, claim)


def test_one_of_several_jobs_takes_a_lease_over(store: ObjectStore) -> None:
    """Four jobs try at the same time to take a lease that its holder no longer renews."""
    foreign(store)
    outcomes: list[str] = []
    over = threading.Barrier(4)

    def take() -> None:
        try:
            with hold(store, KEY, "grpo", beat_s=BEAT_S, expiry_s=2 * EXPIRY_S):
                outcomes.append("held")
                over.wait()
        except JobRefused:
            outcomes.append("refused")
            over.wait()

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["held", "refused", "refused", "refused"]


JOBS = {
    "curate": (curate.run, "datasets/awares-mini/lease.json", "data.name"),
    "sft": (sft.run, "runs/mini/sft/lease.json", "run.name"),
    "grpo": (grpo.run, "runs/mini/grpo/lease.json", "run.name"),
    "evaluate": (evaluate.run, "runs/mini/evaluate/lease.json", "run.name"),
}


@pytest.mark.parametrize("job", JOBS)
def test_every_job_is_refused_before_it_starts_anything(
    store: ObjectStore, tmp_path: Path, job: str
) -> None:
    run, key, rename = JOBS[job]
    config = PlatformConfig(store=store.config, run=RunConfig(directory=tmp_path))
    with (
        hold(store, key, job, beat_s=BEAT_S),
        pytest.raises(JobRefused, match=rf"in use by `awares {job}`.* or set another {rename}"),
    ):
        run(config)
    assert not list(store.list("")) and not list(tmp_path.iterdir())


def test_a_job_whose_lease_is_deleted_stops(store: ObjectStore, start: Start) -> None:
    first = start()
    held(first)
    store.delete(KEY)
    _, said = first.communicate(timeout=20)
    assert first.returncode == 2
    assert "this job has stopped, because its lease.json is deleted or damaged" in said


def test_a_job_outlives_an_outage_of_the_store(faults: Faults) -> None:
    """For a while, the store refuses to renew the job's lease. Later, the job renews the lease."""
    store = faults.store
    with hold(store, KEY, "grpo", beat_s=BEAT_S, expiry_s=EXPIRY_S) as claim:
        faults.on("*lease.json", "PUT", fault=Status(503))
        wait_for(lambda: statuses(faults, "PUT").count(503) > 3)
        before = store.head(KEY).etag
        faults.clear()
        wait_for(lambda: store.head(KEY).etag != before)
        require_held(store, claim)
    assert not store.exists(KEY)


def test_many_endpoints_hold_leases_on_one_run(store: ObjectStore) -> None:
    with in_use(store, "mini"), in_use(store, "mini"):
        assert len(serve_leases(store, "mini")) == 2
    assert not serve_leases(store, "mini")


def test_an_endpoint_that_may_only_read_works_without_a_lease(
    faults: Faults, caplog: pytest.LogCaptureFixture
) -> None:
    faults.on("*lease.json", "PUT", fault=Status(403, "AccessDenied"))
    with in_use(faults.store, "mini"):
        assert "a quickstart might delete run mini, because it has no lease: " in caplog.text
