"""manifests/: what stands beside the chart is valid, too, and its overlays build."""

import subprocess
from pathlib import Path

import pytest
import yaml

from tests.unit.helm import crd, operator_rules, schemas
from tests.unit.helm.render import ROOT, Doc, binary, environment

FOLDER = ROOT / "manifests"
FILES = sorted(FOLDER.rglob("*.yaml"))
WITHOUT_DEFINITION = {"EC2NodeClass", "NodePool", "Queue"}
NO_OBJECTS = ("kustomization.yaml",)


def objects(path: Path) -> list[Doc]:
    """The Kubernetes objects in a file; none in what other programs read."""
    docs = [doc for doc in yaml.load_all(path.read_bytes(), yaml.CSafeLoader) if doc]
    return [doc for doc in docs if isinstance(doc, dict) and {"apiVersion", "kind", "metadata"} <= doc.keys()]


def label(path: Path) -> str:
    return str(path.relative_to(FOLDER))


@pytest.mark.parametrize("version", schemas.VERSIONS)
@pytest.mark.parametrize("path", FILES, ids=label)
def test_kubernetes_takes_the_manifest(path: Path, version: str) -> None:
    own = [doc for doc in objects(path) if not crd.is_custom(doc)]
    assert [fault for doc in own for fault in schemas.faults(doc, version)] == []


@pytest.mark.parametrize("path", FILES, ids=label)
def test_custom_resources_fit_their_definitions(path: Path) -> None:
    custom = [doc for doc in objects(path) if crd.is_custom(doc) and doc["kind"] not in WITHOUT_DEFINITION]
    found = [fault for doc in custom for fault in crd.faults(doc)]
    assert found + [fault for doc in custom for fault in operator_rules.faults(doc)] == []


@pytest.mark.parametrize("path", [path for path in FILES if path.name not in NO_OBJECTS], ids=label)
def test_the_name_says_kind_and_variant_and_the_first_line_what_it_is(path: Path) -> None:
    kind, variant, suffix = path.name.split(".")
    assert kind and variant and suffix == "yaml"
    assert path.read_text().startswith("# "), "one line that explains it"


@pytest.mark.parametrize("path", [path for path in FILES if path.name == "kustomization.yaml"], ids=label)
def test_kustomizations_build(path: Path) -> None:
    command = [str(binary("kubectl")), "kustomize", str(path.parent)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    built = [doc for doc in yaml.load_all(done.stdout, yaml.CSafeLoader) if doc]
    assert built
    own = [doc for doc in built if not crd.is_custom(doc)]
    assert [fault for doc in own for fault in schemas.faults(doc, schemas.VERSIONS[-1])] == []
