"""Runs the real helm 4 or helm 3 against one API server."""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]


def binary(name: str) -> Path:
    """Return the path of `helm`, `helm3` or `kubectl`. Skip the test if the tool is missing."""
    path = ROOT / ".tools" / "bin" / name
    if not os.access(path, os.X_OK):
        pytest.skip(f"{path.relative_to(ROOT)} is missing: run `make tools`")
    return path


@dataclass(frozen=True, slots=True)
class Ended:
    """The exit status, standard output and standard error of a command.

    Example:
        Ended(0, "STATUS: deployed\\n", "")
    """

    status: int
    out: str
    err: str

    @property
    def said(self) -> str:
        """The standard output followed by the standard error, for messages of assertions."""
        return self.out + self.err


@dataclass(frozen=True, slots=True)
class Helm:
    """A helm binary, with the kubeconfig file and the home directory that it uses."""

    path: Path
    kubeconfig: Path
    home: Path

    @property
    def major(self) -> int:
        """The major version, 3 or 4."""
        return 3 if self.path.name == "helm3" else 4

    def run(self, *arguments: str, timeout_s: float = 300) -> Ended:
        """Run a helm command and return its result, even if the command fails."""
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "KUBECONFIG": str(self.kubeconfig),
        }
        command = [str(self.path), *arguments]
        ended = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=timeout_s
        )
        return Ended(ended.returncode, ended.stdout, ended.stderr)

    def do(self, *arguments: str, timeout_s: float = 300) -> str:
        """Run a helm command, assert that it succeeds, and return its standard output."""
        ended = self.run(*arguments, timeout_s=timeout_s)
        assert ended.status == 0, f"helm {' '.join(arguments)}: {ended.said}"
        return ended.out

    def read(self, *arguments: str) -> Any:
        """Run a helm command with `--output json` and return the parsed value."""
        return json.loads(self.do(*arguments, "--output", "json"))
