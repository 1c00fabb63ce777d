"""Renders the chart with helm 4 or helm 3. A test session renders each set of values once.

    values, preset -- helm template -- YAML -- documents

All tests share the documents, so a test must change only copies of them.
"""

import atexit
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
CHART = ROOT / "helm" / "awares-train"
PRESETS = CHART / "presets"
RELEASE, NAMESPACE = "awares", "training"
BINARIES = {4: "helm", 3: "helm3"}

Doc = dict[str, Any]


def binary(name: str) -> Path:
    """Return the path of a tool. Skip the test if `make tools` has not installed it."""
    path = ROOT / ".tools" / "bin" / name
    if not path.exists():
        pytest.skip(f"{path.relative_to(ROOT)} is missing: run `make tools`")
    return path


@lru_cache(maxsize=1)
def environment() -> dict[str, str]:
    """Return environment variables that give helm a temporary directory and no cluster."""
    home = tempfile.mkdtemp(prefix="helm-")
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("HELM_", "KUBE"))
    }
    places = {f"HELM_{kind}_HOME": f"{home}/{kind.lower()}" for kind in ("CACHE", "CONFIG", "DATA")}
    return kept | places | {"KUBECONFIG": f"{home}/kubeconfig"}


def helm(
    arguments: Sequence[str], major: int = 4, values: Mapping[str, Any] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run helm with `values` on its standard input. The caller checks the exit status."""
    command = [str(binary(BINARIES[major])), *arguments]
    if values is not None:
        command += ["--values", "-"]
    return subprocess.run(
        command,
        input=json.dumps(values or {}),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )


def render(
    values: Mapping[str, Any], preset: str | None = None, major: int = 4, release: str = RELEASE
) -> tuple[Doc, ...]:
    """Return the documents that the chart renders. `values` override the values of `preset`.

    The test fails with helm's message if helm refuses the values.
    """
    done = _template(json.dumps(values, sort_keys=True), preset, major, release)
    assert done.returncode == 0, (
        f"helm {major} refused {json.dumps(values)} (preset {preset}):\n{done.stderr}"
    )
    return _parse(done.stdout)


def refusal(
    values: Mapping[str, Any], preset: str | None = None, major: int = 4, release: str = RELEASE
) -> str:
    """Return the message with which helm refuses `values`.

    The test fails if helm accepts the values.
    """
    done = _template(json.dumps(values, sort_keys=True), preset, major, release)
    assert done.returncode != 0, (
        f"helm {major} accepted {json.dumps(values)} (preset {preset}), but must refuse the values"
    )
    return done.stderr


@cache
def _template(
    values: str, preset: str | None, major: int, release: str
) -> subprocess.CompletedProcess[str]:
    arguments = ["template", release, str(CHART), "--namespace", NAMESPACE]
    if preset is not None:
        arguments += ["--values", str(PRESETS / f"{preset}.yaml")]
    return helm(arguments, major, json.loads(values))


@cache
def _parse(text: str) -> tuple[Doc, ...]:
    return tuple(doc for doc in yaml.load_all(text, yaml.CSafeLoader) if doc)


def name_of(doc: Doc) -> str:
    """Return a document's name for messages: its kind, a slash and its `metadata.name`.

    Example:
        name_of({"kind": "Service", "metadata": {"name": "head"}})  # "Service/head"
    """
    return f"{doc['kind']}/{doc['metadata']['name']}"


def of_kind(docs: Sequence[Doc], *kinds: str) -> list[Doc]:
    """Return the documents of these kinds, in the order of `docs`."""
    return [doc for doc in docs if doc["kind"] in kinds]
