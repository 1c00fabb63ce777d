"""Tests a session in a hostile environment, as on a company's laptop.

Paths contain spaces, and TMPDIR is too long. Proxy and AWS variables are set for other servers.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import hostile

pytestmark = [pytest.mark.integration, pytest.mark.slow]
ROOT = Path(__file__).parents[2]

SESSION = """
import os, sys, pyarrow.fs, ray
from awares_platform.config import load
from awares_platform.runtime import logs
from awares_platform.runtime.session import session
from awares_platform.store import ObjectStore
from awares_platform.training.checkpoint import filesystem

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


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a symbolic link to this clone. The path of the link contains a space."""
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


def test_a_session_works_with_everything_hostile(
    project: Path, python: Path, temporary: Path, tmp_path: Path
) -> None:
    setup = tmp_path / "setup.toml"
    setup.write_text(f'[run]\ndirectory = "{tmp_path}/all runs"\n', "utf-8-sig")
    with hostile.proxy() as proxy:
        environment = {
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
        done = subprocess.run(
            [str(python), "-c", SESSION, str(setup)],
            env=environment, cwd=project, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        theirs = f"left-over http://127.0.0.1:{proxy.server_port}"
        assert done.stdout.splitlines() == [
            f"worker from-a-worker {theirs}",
            "driver 2",
            f"driver has {theirs}",
        ], done.stderr
        assert done.returncode == 0
        # Ray may send requests for cloud metadata to the proxy, but no requests for 127.0.0.1.
        assert not [request for request in proxy.asked if "127.0.0.1" in request]
