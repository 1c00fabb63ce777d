"""Tests that helm 4 and helm 3 lint the chart and render the same objects.

Also tests the names of the objects, the package, and the dependencies of the umbrella chart
awares-train-with-operator.
"""

from pathlib import Path

import pytest
import yaml

from tests.unit.helm.cases import CASES, PRESET_VALUES, PRESETS, Case
from tests.unit.helm.render import CHART, NAMESPACE, ROOT, helm, of_kind, render

CLUSTER_WIDE = {
    "Namespace",
    "ClusterRole",
    "ClusterRoleBinding",
    "PriorityClass",
    "CustomResourceDefinition",
    "StorageClass",
}


@pytest.mark.parametrize("major", [4, 3])
@pytest.mark.parametrize("preset", PRESETS)
def test_lint(preset: str, major: int) -> None:
    done = helm(
        ["lint", "--strict", str(CHART), "--values", str(CHART / "presets" / f"{preset}.yaml")],
        major,
        PRESET_VALUES,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 chart(s) failed" in done.stdout


@pytest.mark.parametrize("case", CASES, ids=str)
def test_both_majors_render_the_same(case: Case) -> None:
    assert case.docs(3) == case.docs(4)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_objects_are_of_this_release(case: Case) -> None:
    """Check that each object has the release's namespace, the standard labels and a unique name."""
    docs = case.docs()
    identities = [(doc["apiVersion"], doc["kind"], doc["metadata"]["name"]) for doc in docs]
    assert len(identities) == len(set(identities))
    assert not [doc["kind"] for doc in docs if doc["kind"] in CLUSTER_WIDE]
    for doc in docs:
        labels = doc["metadata"]["labels"]
        assert doc["metadata"]["namespace"] == NAMESPACE, doc["metadata"]["name"]
        assert (
            labels["app.kubernetes.io/managed-by"] == "Helm"
            and labels["app.kubernetes.io/instance"] == "awares"
        )
        assert {
            f"app.kubernetes.io/{part}" for part in ("name", "version", "component", "part-of")
        } <= labels.keys()


def test_two_releases_in_a_namespace_share_no_name() -> None:
    values = next(case for case in CASES if case.name == "default").values
    first, second = (
        {(doc["kind"], doc["metadata"]["name"]) for doc in render(values, release=release)}
        for release in ("awares", "research")
    )
    assert first.isdisjoint(second)


def test_the_chart_packages(tmp_path: Path) -> None:
    done = helm(["package", str(CHART), "--destination", str(tmp_path)])
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["awares-train-0.1.0.tgz"]


def test_the_application_version_is_the_projects() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert f'version = "{chart["appVersion"]}"' in (ROOT / "pyproject.toml").read_text()


def test_the_umbrella_depends_on_this_chart_and_the_operator() -> None:
    umbrella = yaml.safe_load(
        (CHART.with_name("awares-train-with-operator") / "Chart.yaml").read_text()
    )
    own, operator = umbrella["dependencies"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (own["name"], own["repository"], own["version"]) == (
        chart["name"],
        f"file://../{CHART.name}",
        chart["version"],
    )
    assert (operator["name"], operator["version"]) == ("kuberay-operator", "1.7.0")


def test_an_old_kubernetes_is_refused() -> None:
    arguments = [
        "template",
        "awares",
        str(CHART),
        "--values",
        str(CHART / "presets" / "trial.yaml"),
        "--kube-version",
        "1.27.0",
    ]
    done = helm(arguments, values=PRESET_VALUES)
    assert done.returncode != 0 and "incompatible with Kubernetes v1.27.0" in done.stderr


def test_secrets_are_only_referred_to() -> None:
    assert [case.name for case in CASES if of_kind(case.docs(), "Secret")] == []
