"""Tests the choice of the directory for Ray's files.

The paths of Ray's sockets are below this directory, and Linux limits their length to 107 bytes.
"""

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from awares_platform.config import load
from awares_platform.runtime import ray_directory, session
from awares_platform.store import seaweed
from awares_platform.store.errors import LaunchError

ROOT = Path(__file__).parents[4]


def of_length(parent: Path, length: int) -> Path:
    """Create a directory below `parent` whose path has `length` bytes, and return the path."""
    path = Path(f"{parent}/".ljust(length, "x"))
    path.mkdir(parents=True)
    return path


@pytest.fixture
def short() -> Iterator[Path]:
    """Yield a temporary directory with a short path."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="x") as name:
        yield Path(name)


def test_the_longest_parent_holds_rays_sockets_and_a_longer_one_does_not(short: Path) -> None:
    for length, fits in [
        (ray_directory.PARENT_BYTES, True),
        (ray_directory.PARENT_BYTES + 1, False),
    ]:
        parent = of_length(short, length)
        sockets = (
            ray_directory.create(parent) / "session_2026-01-31_23-59-59_999999_4194304/sockets"
        )
        sockets.mkdir(parents=True)
        with socket.socket(socket.AF_UNIX) as listener:
            if fits:
                listener.bind(str(sockets / "plasma_store"))
            else:
                with pytest.raises(OSError, match="AF_UNIX path too long"):
                    listener.bind(str(sockets / "plasma_store"))


def test_a_short_tmpdir_is_used(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(short))
    monkeypatch.setenv("HOME", str(short))
    assert ray_directory.parent() == short
    assert ray_directory.variables(short) == {}


def test_a_long_tmpdir_is_replaced_by_a_shorter_one(
    short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(of_length(short, 28)))
    monkeypatch.setenv("HOME", str(short))
    assert ray_directory.parent() == Path("/tmp")
    assert ray_directory.variables(short) == {}
    assert ray_directory.parent([short / "absent", short]) == short


def test_a_tmpdir_too_long_for_any_socket_is_replaced_for_rays_processes(
    short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(of_length(short, 71)))
    monkeypatch.setenv("HOME", str(short))
    assert ray_directory.variables(short) == {"TMPDIR": str(short)}


def test_no_short_directory_is_refused_before_the_store_starts(
    short: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = of_length(short, 28)
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    monkeypatch.setattr(ray_directory.parent, "__defaults__", ([short / "absent"],))
    monkeypatch.setattr(seaweed, "serve", lambda *_: pytest.fail("the store was started"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    config = load(ROOT / "jobs/configs/mini.toml", [f"run.directory={tmp_path}"])
    wanted = (
        f"TMPDIR={long} has 28 bytes, and at most {ray_directory.PARENT_BYTES} leave room .* 107"
    )
    with pytest.raises(LaunchError, match=wanted), session.session(config):
        pass


def test_names_beyond_ascii_count_in_bytes(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = short / "ööööö"
    wide.mkdir()
    assert len(str(wide)) <= ray_directory.PARENT_BYTES < len(os.fsencode(wide))
    monkeypatch.setattr(tempfile, "tempdir", str(wide))
    assert ray_directory.parent() == Path("/tmp")


@pytest.mark.parametrize("home", ["/proc/nowhere", "/dev/null", "/dev/null/home"])
def test_ray_gets_a_token_if_it_cannot_save_one(
    short: Path, monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(short))
    monkeypatch.setenv("HOME", str(short))
    assert ray_directory.variables(short) == {}
    monkeypatch.setenv("HOME", home)
    [(name, token)] = ray_directory.variables(short).items()
    assert (name, len(token)) == ("RAY_AUTH_TOKEN", 64)
    assert ray_directory.variables(short) == {name: token}
    monkeypatch.setenv("RAY_AUTH_TOKEN", "the-users")
    assert ray_directory.variables(short) == {}
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert ray_directory.variables(short) == {}


WORKER = """
import sys
from pathlib import Path
from ray._private.runtime_env.context import RuntimeEnvContext
from ray.core.generated.common_pb2 import Language
from awares_platform.runtime import ray_directory
sys.executable = ray_directory.python(Path(sys.argv[1]))
RuntimeEnvContext().exec_worker(["-c", "import blake3, sys; print(sys.prefix)"], Language.PYTHON)
"""


def test_ray_starts_a_worker_by_a_python_at_a_path_with_a_space(
    short: Path, tmp_path: Path
) -> None:
    link = tmp_path / "my venv"
    link.symlink_to(sys.prefix)
    python = link / Path(sys.executable).relative_to(sys.prefix)
    done = subprocess.run(
        [str(python), "-c", WORKER, str(short)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout == f"{short}/python\n", done.stderr


def test_a_plain_python_is_used_as_it_is(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/opt/venv/bin/python")
    assert ray_directory.python(short) == "/opt/venv/bin/python"
    assert not list(short.iterdir())


def test_a_tmpdir_with_a_space_is_replaced(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spaced = short / "a b"
    spaced.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(spaced))
    assert ray_directory.parent() == Path("/tmp")


def test_the_users_exceptions_from_a_proxy_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "intranet.example")
    monkeypatch.setenv("NO_PROXY", "")
    assert session._direct("192.168.7.8") == {
        "no_proxy": "intranet.example,localhost,127.0.0.1,192.168.7.8",
        "NO_PROXY": "localhost,127.0.0.1,192.168.7.8",
    }
