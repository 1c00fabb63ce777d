"""Tests a session and small jobs in a hostile environment, as on a company's laptop.

Paths contain spaces, TMPDIR is very long, and environment variables name other servers.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests import hostile
from tests.integration.our_lines import OUR_LINE, OUR_RESULT, foreign
from tests.integration.standalone import wait_for
from tests.processes import descendants, family, gone

pytestmark = [pytest.mark.integration, pytest.mark.slow]
ROOT = Path(__file__).parents[2]

SESSION = """
import os, sys, pyarrow.fs, ray
from awares_platform.config import load
from awares_platform.runtime import logs
from awares_platform.runtime.session import session
from awares_platform.store import ObjectStore
from awares_platform.training.filesystem import filesystem

@ray.remote
def work(store):
    ObjectStore.from_config(store).put("from-a-worker", b"1", if_none_match=True)
    place = f"{store.bucket}/{store.prefix}"
    [found] = filesystem(store).get_file_info(pyarrow.fs.FileSelector(place))
    with filesystem(store).open_output_stream(f"{place}/from-a-checkpoint") as stream:
        stream.write(b"2")
    return found.base_name, os.environ["AWS_SESSION_TOKEN"], os.environ["http_proxy"]

logs.configure()
with session(load(sys.argv[1])) as config:
    print("worker", *ray.get(work.remote(config.store)))
    print("driver", ObjectStore.from_config(config.store).get("from-a-checkpoint").decode())
    print("driver has", os.environ["AWS_SESSION_TOKEN"], os.environ["http_proxy"])
"""


ENGINE = "VLLM::EngineCore"
AWARES = "from awares_platform.cli.main import main; main()"
SMALL = """
[run]
directory = "{directory}"

[data]
train_samples = 24
test_samples = 8

[engine]
kv_cache_gib = 0.25

[curate]
min_confidence = 0.0

[sft]
epochs = 1
batch_size = 8
micro_batch = 4

[grpo]
steps = 1
groups_per_step = 2
group_size = 2

[evaluate]
latency_questions = 1
"""
STRUCK = {"curate": signal.SIGTERM, "evaluate": signal.SIGINT}
"""The jobs that get a signal while their engine starts, before they run again to their end."""
STATUS = {signal.SIGTERM: 143, signal.SIGINT: 130}
STOP_S, GONE_S = 60, 30


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a symbolic link to the repository. The path of the link contains a space."""
    link = tmp_path / "my project"
    link.symlink_to(ROOT)
    return link


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """Return a path with a space, which leads to the Python interpreter.

    The path uses a symbolic link to the virtual environment.
    """
    link = tmp_path / "my venv"
    link.symlink_to(sys.prefix)
    return link / Path(sys.executable).relative_to(sys.prefix)


@pytest.fixture
def temporary() -> Iterator[Path]:
    """Yield a TMPDIR whose path is too long for a Unix socket."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "x" * 90)
        path.mkdir()
        yield path


@pytest.fixture
def environment(
    project: Path, temporary: Path, tmp_path: Path, proxy: hostile.RefusingProxy
) -> dict[str, str]:
    """Return this process's environment with all hostile variables."""
    return {
        **{name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},
        **hostile.everything(proxy.server_port, tmp_path),
        "PYTHONPATH": os.pathsep.join([str(project), str(project / "platform")]),
        "TMPDIR": str(temporary),
        "HOME": "/proc/nowhere",
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "PYTHONIOENCODING": "ascii",
    }


@pytest.fixture
def proxy() -> Iterator[hostile.RefusingProxy]:
    """Yield a running proxy. Afterwards, check that it got no request for 127.0.0.1.

    Ray may send requests for cloud metadata to the proxy.
    """
    with hostile.proxy() as running:
        yield running
        assert not [request for request in running.asked if "127.0.0.1" in request]


def test_a_session_works_with_everything_hostile(
    project: Path, python: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    setup = tmp_path / "setup.toml"
    setup.write_text(f'[run]\ndirectory = "{tmp_path}/all runs"\n', "utf-8-sig")
    done = subprocess.run(
        [str(python), "-c", SESSION, str(setup)],
        env=environment, cwd=project, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    theirs = f"left-over {environment['http_proxy']}"
    assert done.stdout.splitlines() == [
        f"worker from-a-worker {theirs}",
        "driver 2",
        f"driver has {theirs}",
    ], done.stderr
    assert done.returncode == 0


@pytest.mark.timeout(1200)
def test_the_jobs_work_and_print_only_our_lines(
    project: Path, python: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    """Libraries such as Ray must not print lines of their own to the terminal."""
    setup = tmp_path / "small setup.toml"
    setup.write_text(SMALL.format(directory=tmp_path / "all runs"), "utf-8-sig")
    for job in ("curate", "sft", "grpo", "evaluate", "report"):
        command = [str(python), "-c", AWARES, job, "--config", str(setup)]
        if job in STRUCK:
            _strike(command, environment, project, STRUCK[job])
        done = subprocess.run(
            command, env=environment, cwd=project, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0 and done.stdout, (job, done.stdout, done.stderr)
        assert foreign(done.stderr, OUR_LINE) == [], (job, done.stderr)
        assert foreign(done.stdout, OUR_RESULT) == [], (job, done.stdout)


def _strike(
    command: list[str], environment: dict[str, str], directory: Path, number: signal.Signals
) -> None:
    """Signal a job's process group, as a terminal does, when the engine's process starts.

    The job must end at once, leave no process, and print no lines of libraries.
    """
    process = subprocess.Popen(
        command, env=environment, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, process_group=0,
    )  # fmt: skip
    wait_for(lambda: bool(descendants(lambda one: one.startswith(ENGINE), process.pid)), process)
    everything = family(psutil.Process(process.pid))
    os.killpg(process.pid, number)
    shown, said = process.communicate(timeout=STOP_S)
    assert (process.returncode, shown) == (STATUS[number], ""), said
    *lines, last = said.splitlines()
    assert foreign("\n".join(lines), OUR_LINE) == [], said
    assert re.match(r"awares \w+: interrupted; everything it started has stopped\. If", last), said
    assert not gone(everything, within_s=GONE_S)
