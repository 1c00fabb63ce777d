"""Tests the commands that the Makefile's targets run."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def commands(target: str, **variables: str) -> str:
    """Return the commands that `make -n` prints for `target`.

    `variables` are added to the environment.
    """
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("AWARES_SEED", "ARGS", "MAKEFLAGS")
    } | variables
    return subprocess.run(
        # With a changed pyproject.toml, `make` also prints the commands that install packages.
        ["make", "-n", "--what-if=pyproject.toml", target],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_a_seed_in_the_environment_reaches_the_quickstart() -> None:
    assert "awares quickstart run.seed=7" in commands("quickstart", AWARES_SEED="7")
    assert "run.seed" not in commands("quickstart")


def test_a_failed_rehearsal_leaves_the_committed_table() -> None:
    lines = [line for line in commands("rehearse", ARGS="sft").splitlines() if "rehears" in line]
    assert lines[0].endswith("-m tests.rehearsal.run sft")
    assert "README.md" not in lines[1], "a shell empties the target before the command runs"
    assert lines[2].split()[0] == "mv"


def test_the_installation_needs_no_writable_home(tmp_path: Path) -> None:
    def installation(home: Path) -> list[str]:
        text = commands(
            ".venv/installed", HOME=str(home), UV_CACHE_DIR="", XDG_CACHE_HOME="", UV_NO_CACHE=""
        )
        return [line for line in text.splitlines() if "uv pip" in line]

    assert [" --no-cache " in line for line in installation(Path("/proc/nowhere"))] == [True] * 2
    assert [" --no-cache " in line for line in installation(tmp_path)] == [False] * 2


def test_lock_writes_both_sets_with_hashes_and_without_addresses() -> None:
    lines = [
        line for line in commands("lock").replace("\\\n", "").splitlines() if " compile " in line
    ]
    assert [
        "--output-file platform/requirements/cpu.txt" in lines[0],
        "--output-file platform/requirements/gpu.txt" in lines[1],
    ] == [True] * 2
    for line in lines:
        assert (
            "--generate-hashes" in line and "--no-emit-index-url" in line and "--no-header" in line
        )
