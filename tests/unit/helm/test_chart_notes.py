"""Tests that NOTES.txt names existing objects, and that the umbrella chart renders this chart.

The umbrella chart is awares-train-with-operator.
"""

import re
import shutil
from pathlib import Path

import pytest
import yaml

from tests.unit.helm.cases import CASES, PRESET_VALUES, PRESETS, SECRETS, Case
from tests.unit.helm.render import CHART, NAMESPACE, RELEASE, ROOT, Doc, helm
from tests.unit.helm.selectors import service_ports


def notes(case: Case) -> str:
    """Return the notes that `helm install` prints for the case.

    The function uses helm 4, because helm 3 needs a cluster to print notes.
    """
    preset = ["--values", str(CHART / "presets" / f"{case.preset}.yaml")] if case.preset else []
    done = helm(
        ["install", RELEASE, str(CHART), "--namespace", NAMESPACE, "--dry-run=client", *preset],
        values=case.values,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.partition("\nNOTES:\n")[2]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_notes_name_existing_objects(case: Case) -> None:
    text = notes(case)
    ports = service_ports(case.docs())
    forwards = re.findall(r"port-forward service/(\S+) \d+:(\d+)", text)
    assert all(int(port) in ports[name] for name, port in forwards)
    assert {
        f"Secret/{name}" for name in re.findall(r"get secret (\S+)", text)
    } <= case.outside.keys()
    assert all((ROOT / script).exists() for script in re.findall(r"python (jobs/\w+\.py)", text))
    assert f"helm test {RELEASE} --namespace {NAMESPACE}" in text
    kinds = {doc["kind"] for doc in case.docs()}
    assert ("RayCluster" in kinds) is ("ray job submit" in text) and ("RayService" in kinds) is (
        "awares ask" in text
    )


REMOVAL = re.compile(r"kubectl.* delete (\S+) --cascade=foreground .*?--selector (\S+)=(\S+)", re.S)
"""The command that removes the release's custom resources before `helm uninstall`."""


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_command_before_an_uninstall_finds_every_custom_resource(case: Case) -> None:
    """Check that the command deletes every kind of custom resource that the chart renders.

    `helm uninstall` alone could delete KubeRay's operator too early. The operator must first clean
    up the custom resources.
    """
    [(kinds, label, value)] = REMOVAL.findall(notes(case))
    assert (label, value) == ("app.kubernetes.io/instance", RELEASE)
    for doc in case.docs():
        if doc["apiVersion"].startswith("ray.io/"):
            assert f"{doc['kind'].lower()}s" in kinds.split(",")
            assert doc["metadata"]["labels"][label] == value
    for page in ("docs/install.md", "awares-train-with-operator/README.md"):
        text = (CHART.parent / page).read_text()
        assert REMOVAL.findall(text) == [(kinds, label, "awares-train")]


def test_notes_warn_of_open_ports() -> None:
    by_name = {
        case.name: notes(case)
        for case in CASES
        if case.name in ("default", "open", "no policies, no tests")
    }
    assert (
        "auth.mode=disabled: anybody" in by_name["open"] and "RAY_AUTH_TOKEN" not in by_name["open"]
    )
    assert "networkPolicy.enabled=false: every pod" in by_name["no policies, no tests"]
    closed = by_name["default"]
    assert "anybody" not in closed and "every pod" not in closed and "RAY_AUTH_TOKEN" in closed


@pytest.fixture(scope="module")
def umbrella(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of a copy of the umbrella chart whose only dependency is awares-train.

    The copy drops the dependency on the operator's chart, which would have to be downloaded.
    """
    charts = tmp_path_factory.mktemp("charts")
    copies = [
        shutil.copytree(chart, charts / chart.name)
        for chart in (CHART, CHART.with_name("awares-train-with-operator"))
    ]
    path = copies[1] / "Chart.yaml"
    chart = yaml.safe_load(path.read_text())
    chart["dependencies"] = chart["dependencies"][:1]
    path.write_text(yaml.safe_dump(chart))
    done = helm(["dependency", "build", str(copies[1])])
    assert done.returncode == 0, done.stderr
    return copies[1]


@pytest.mark.parametrize("preset", PRESETS)
def test_the_umbrella_renders_the_same_documents(umbrella: Path, preset: str) -> None:
    """Check that the umbrella chart renders the same documents as the chart itself.

    Helm also passes the umbrella's key `global` to the chart, so the chart's schema must accept it.
    """
    file = str(CHART / "presets" / f"{preset}.yaml")
    above = yaml.safe_load(Path(file).read_text())
    values = {"awares-train": _over(above, PRESET_VALUES), "global": {"region": "here"}}
    done = helm(["template", RELEASE, str(umbrella), "--namespace", NAMESPACE], values=values)
    assert done.returncode == 0, done.stderr
    own = helm(
        ["template", RELEASE, str(CHART), "--namespace", NAMESPACE, "--values", file],
        values=PRESET_VALUES,
    )
    assert _docs(done.stdout) == _docs(own.stdout) != []


def _over(below: Doc, above: Doc) -> Doc:
    """Merge two values files as helm does. Values of `above` override values of `below`."""
    merged = dict(below)
    for key, value in above.items():
        merged[key] = _over(below.get(key, {}), value) if isinstance(value, dict) else value
    return merged


def test_the_umbrella_refuses_unknown_keys_of_the_chart(umbrella: Path) -> None:
    done = helm(
        ["template", RELEASE, str(umbrella)],
        values={"awares-train": PRESET_VALUES | {"clutser": {}}},
    )
    assert done.returncode != 0 and "additional properties 'clutser' not allowed" in done.stderr


def _docs(text: str) -> list[str]:
    return sorted(yaml.safe_dump(doc) for doc in yaml.load_all(text, yaml.CSafeLoader) if doc)


def test_values_yaml_documents_the_keys_of_all_secrets() -> None:
    """Check that values.yaml names every key of the Secrets in SECRETS, which a user creates."""
    text = (CHART / "values.yaml").read_text()
    assert [key for keys in SECRETS.values() for key in keys if key not in text] == []
