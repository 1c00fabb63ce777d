"""Tests that the shipped setups are in the wheel and in the package that Ray uploads."""

import subprocess
import sys
import zipfile
from pathlib import Path

from awares_platform.config.setup import shipped

ROOT = Path(__file__).parents[4]
SETUPS = {path.name: path.read_bytes() for path in (ROOT / "jobs" / "configs").glob("*.toml")}


def test_the_names_are_those_of_jobs_configs() -> None:
    assert {path.name: path.read_bytes() for path in shipped().values()} == SETUPS


def test_the_wheel_holds_the_setups(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=120)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        held = {
            Path(name).name: wheel.read(name)
            for name in wheel.namelist()
            if name.startswith("awares_platform/setups/")
        }
    assert held == SETUPS


def test_an_uploaded_clone_holds_the_setups(tmp_path: Path) -> None:
    """Check that a package for `ray job submit --working-dir .` contains the setups.

    In the clone, the directory of the setups is a symbolic link, which Ray must follow.
    """
    from ray._private.runtime_env.packaging import create_package

    package = tmp_path / "package.zip"
    platform = ROOT / "platform"
    create_package(str(platform), package, include_gitignore=False)
    with zipfile.ZipFile(package) as held:
        names = held.namelist()
    assert {f"awares_platform/setups/{name}" for name in SETUPS} <= set(names)
