"""Tests that helm 4 and helm 3 install, upgrade, roll back and uninstall each preset of the chart.

The simulator's API server checks the objects against the CRD schemas. No pod runs.
"""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.simulator.api.kinds import Kinds
from tests.simulator.api.objects import Body, Objects
from tests.simulator.api.server import running
from tests.simulator.tools import helm
from tests.simulator.tools.release import CHART, new_keys
from tests.unit.helm.operator_rules import faults

pytestmark = pytest.mark.integration

PRESETS = sorted(path.stem for path in (CHART / "presets").glob("*.yaml"))
OURS = (
    "ConfigMap",
    "NetworkPolicy",
    "PodDisruptionBudget",
    "RayCluster",
    "RayJob",
    "RayService",
    "Service",
    "ServiceAccount",
    "StatefulSet",
)


@pytest.fixture
def objects(kinds: Kinds) -> Objects:
    return Objects(kinds)


@pytest.fixture(params=["helm", "helm3"])
def cli(request: pytest.FixtureRequest, objects: Objects, tmp_path: Path) -> Iterator[helm.Helm]:
    path = helm.binary(request.param)
    with running(objects) as server:
        yield helm.Helm(path, server.kubeconfig(tmp_path), tmp_path)


def add_secrets(objects: Objects) -> None:
    for name, data in new_keys().items():
        objects.create(
            objects.kinds.of("v1", "Secret"),
            "default",
            {"metadata": {"name": name}, "stringData": data},
        )


def all_of(objects: Objects, name: str) -> list[Body]:
    [kind] = [
        kind for kind in objects.kinds.all if kind.name == name and kind.version != "v1alpha1"
    ]
    return objects.list(kind)


def preset(name: str) -> list[str]:
    """Return helm's arguments for a preset.

    Only the preset `trial` sets the bucket and the target. The arguments set them for all others.
    """
    path = CHART / "presets" / f"{name}.yaml"
    given = [] if name == "trial" else ["--set", "store.bucket=awares,target=eks"]
    return ["-f", str(path), *given]


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_installed_upgraded_rolled_back_and_uninstalled(
    cli: helm.Helm, objects: Objects, name: str
) -> None:
    add_secrets(objects)
    cli.do("install", "r", str(CHART), *preset(name))
    before = {
        kind: {
            body["metadata"]["name"]: body["metadata"]["generation"]
            for body in all_of(objects, kind)
        }
        for kind in OURS
    }
    assert before["RayCluster"] or before["RayJob"] or before["RayService"]
    refused = [
        said
        for kind in ("RayCluster", "RayJob", "RayService")
        for body in all_of(objects, kind)
        for said in faults(body)
    ]
    assert refused == [], "after the API server sets CRD defaults, the operator refuses an object"
    cli.do("upgrade", "r", str(CHART), *preset(name), "--set", "setup.run.seed=7")
    changed = {
        kind
        for kind in OURS
        for body in all_of(objects, kind)
        if body["metadata"]["generation"] != before[kind][body["metadata"]["name"]]
    }
    assert changed and changed <= {"ConfigMap", "RayService"}, (
        "a new seed may change only the ConfigMap and the RayService"
    )
    cli.do("rollback", "r", "1")
    cli.do("uninstall", "r", "--wait")
    assert {kind: all_of(objects, kind) for kind in OURS} == dict.fromkeys(OURS, [])
    assert sorted(body["metadata"]["name"] for body in all_of(objects, "Secret")) == sorted(
        new_keys()
    )


@pytest.mark.parametrize("missing", sorted(new_keys()))
def test_a_missing_secret_is_named_before_anything_is_made(
    cli: helm.Helm, objects: Objects, missing: str
) -> None:
    add_secrets(objects)
    objects.delete(objects.kinds.of("v1", "Secret"), "default", missing)
    ended = cli.run("install", "r", str(CHART), *preset("trial"))
    assert ended.status != 0 and missing in ended.err
    assert all_of(objects, "RayCluster") == [] == all_of(objects, "ConfigMap")


def test_a_secret_without_its_key_is_named(cli: helm.Helm, objects: Objects) -> None:
    add_secrets(objects)
    secrets = objects.kinds.of("v1", "Secret")
    body = objects.get(secrets, "default", "awares-ray")
    objects.replace(secrets, "default", "awares-ray", {**body, "data": {"token": "eA=="}})
    ended = cli.run("install", "r", str(CHART), *preset("trial"))
    assert ended.status != 0 and "awares-ray" in ended.err and "auth_token" in ended.err


@pytest.mark.parametrize(
    ("unknown", "sentence"),
    [
        (
            ("RayCluster", "RayJob", "RayService", "RayCronJob"),
            "this cluster has no API ray.io/v1: install the operator first",
        ),
        (("RayCronJob",), "this cluster's CRDs are of a KubeRay before 1.6"),
    ],
)
@pytest.mark.parametrize("major", ["helm", "helm3"])
def test_a_cluster_without_todays_kuberay_is_refused(
    kinds: Kinds, tmp_path: Path, major: str, unknown: tuple[str, ...], sentence: str
) -> None:
    objects = Objects(Kinds([kind for kind in kinds.all if kind.name not in unknown]))
    add_secrets(objects)
    with running(objects) as server:
        ended = helm.Helm(helm.binary(major), server.kubeconfig(tmp_path), tmp_path).run(
            "install", "r", str(CHART), *preset("trial")
        )
    assert ended.status != 0 and sentence in ended.err
    assert all_of(objects, "ConfigMap") == []


@pytest.mark.parametrize("name", ["serve-only", "two-pools"])
def test_the_command_before_an_uninstall_removes_all_custom_resources(
    objects: Objects, tmp_path: Path, name: str
) -> None:
    """Run the `kubectl delete` command from install.md with the real kubectl."""
    text = (CHART.parent / "docs/install.md").read_text()
    [command] = re.findall(r"^    (kubectl delete ray\S+ .*\\\n.*)$", text, re.MULTILINE)
    words = command.replace("\\\n", " ").replace("instance=awares-train", "instance=r").split()
    add_secrets(objects)
    with running(objects) as server:
        cli = helm.Helm(helm.binary("helm"), server.kubeconfig(tmp_path), tmp_path)
        cli.do("install", "r", str(CHART), *preset(name), "--set", "endpoint.enabled=true")
        environment = {**os.environ, "KUBECONFIG": str(cli.kubeconfig), "HOME": str(tmp_path)}
        done = subprocess.run(
            [str(helm.binary("kubectl")), *words[1:], "--timeout=60s"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        kinds = ("RayCluster", "RayJob", "RayService", "RayCronJob")
        assert {kind: all_of(objects, kind) for kind in kinds} == dict.fromkeys(kinds, [])
        assert "deleted" in done.stdout and all_of(objects, "ConfigMap")
