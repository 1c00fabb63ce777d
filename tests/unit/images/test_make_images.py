"""Tests that `make images` builds both images, or explains that a container engine is missing."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[3]


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    # An outer `make test` exports variables that would change this inner make.
    ours = ("MAKE", "MFLAGS")
    environment = {name: text for name, text in os.environ.items() if not name.startswith(ours)}
    return subprocess.run(
        ["make", "-n", "images", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=environment,
    )


def test_both_images_are_built_from_the_repository() -> None:
    lines = make(
        "ENGINE=podman", "IMAGE=registry.example/awares-train", "PYTHON_DIGEST=sha256:abc"
    ).stdout.splitlines()
    assert [line.rpartition(" --file ")[2] for line in lines] == [
        "platform/images/gpu.Dockerfile --tag registry.example/awares-train:0.1.0 .",
        "platform/images/cpu.Dockerfile --tag registry.example/awares-train:0.1.0-cpu .",
    ]
    assert all(
        line.startswith("podman build --build-arg VERSION=0.1.0")
        and "PYTHON_DIGEST=sha256:abc" in line
        for line in lines
    )


def test_no_engine_is_one_clear_error() -> None:
    said = make("ENGINE=")
    assert said.returncode == 2 and said.stdout == ""
    remedy = "install docker, podman or buildah, or build platform/images/*.Dockerfile elsewhere"
    assert said.stderr.strip().endswith(f"no container engine: {remedy}.  Stop.")
