"""Tests that CPU time is counted by kind of process, also for processes that have ended."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import psutil
import pytest

from awares_platform.cli import cpu_time
from awares_platform.cli.cpu_time import CpuTimes, kind_of, measured, total

BURN = """
import sys, time
from setproctitle import setproctitle
setproctitle(sys.argv[1])
end = time.process_time() + float(sys.argv[2])
while time.process_time() < end:
    pass
print("burned", flush=True)
sys.stdin.readline()
"""
NESTED = """
import subprocess, sys
from setproctitle import setproctitle
setproctitle("ray::RolloutActor.play")
child = subprocess.Popen([sys.executable, "-c", sys.argv[1], "helper", sys.argv[2]])
child.wait()
"""
RENAMED = """
import sys
from setproctitle import setproctitle
for title in sys.argv[1:]:
    setproctitle(title)
    print("burned", flush=True)
    sys.stdin.readline()
"""

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Return a function that starts Python with a program and its arguments."""
    started: list[subprocess.Popen[str]] = []

    def run(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", *arguments]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.communicate()


def burned(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None and process.stdout.readline() == "burned\n"


def test_processes_count_by_their_titles_and_after_their_end(start: Start) -> None:
    times = CpuTimes(psutil.Process())
    engine, actor = start(BURN, "VLLM::EngineCore", "0.6"), start(BURN, "ray::Answerer", "0.3")
    burned(engine)
    burned(actor)
    times.sample()
    engine.communicate("\n")
    times.sample()
    seconds = times.seconds()
    assert 0.6 <= seconds["engine"] < 1.0 and 0.3 <= seconds["actor"] < 0.7


def test_time_before_the_measurement_does_not_count(start: Start) -> None:
    engine = start(BURN, "VLLM::EngineCore", "0.6")
    burned(engine)
    times = CpuTimes(psutil.Process())
    times.sample()
    assert "engine" not in times.seconds()


def test_an_unknown_process_has_the_kind_of_its_parent(start: Start) -> None:
    parent = start(NESTED, BURN, "0.5")
    burned(parent)
    times = CpuTimes(psutil.Process(parent.pid))
    assert {usage.kind for usage in times._usage.values()} == {"actor"}
    assert len(times._usage) == 2


def test_a_block_is_measured_and_added(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_time, "INTERVAL_S", 0.05)
    seconds = {"engine": 2.0, "learner": 1.0}
    with pytest.raises(KeyboardInterrupt), measured(seconds):
        engine = start(BURN, "VLLM::EngineCore", "0.5")
        burned(engine)
        time.sleep(0.2)
        engine.kill()
        engine.wait()
        raise KeyboardInterrupt
    assert 2.4 <= seconds["engine"] < 2.9 and seconds["learner"] == 1.0


def test_an_idle_worker_keeps_the_kind_of_its_last_task(start: Start) -> None:
    worker = start(RENAMED, "ray::MapBatches(label_shard)", "ray::IDLE")
    burned(worker)
    times = CpuTimes(psutil.Process(worker.pid))
    assert worker.stdin is not None
    worker.stdin.write("\n")
    worker.stdin.flush()
    burned(worker)
    times.sample()
    later = CpuTimes(psutil.Process(worker.pid))
    found = [usage.kind for one in (times, later) for usage in one._usage.values()]
    assert found == ["actor", "ray"]


@pytest.mark.parametrize(
    ("title", "kind"),
    [
        ("ray::MapWorker(MapBatches(Answerer)).submit", "actor"),
        ("ray::TrainController.run", "learner"),
        ("ray::_StatsActor", "ray"),
        ("/opt/lib/python3.11/site-packages/ray/core/src/ray/gcs/gcs_server --log", "ray"),
        ("/opt/bin/weed mini -dir=runs/.store/data", "store"),
        ("python -B -c from multiprocessing.forkserver import main; main(49)", "engine"),
        ("python -c from awares_platform.cli.main import main; main() curate", ""),
    ],
)
def test_titles_tell_the_kind(title: str, kind: str) -> None:
    assert kind_of(title) == kind


def test_totals_keep_the_order_of_the_kinds() -> None:
    both = total({"store": 0.5}, {"engine": 2.0, "store": 0.5})
    assert list(both.items()) == [("engine", 2.0), ("store", 1.0)]
