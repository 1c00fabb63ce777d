"""Tests that the simulator's API server answers kubectl commands like those in the documents."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.simulator.api.kinds import Kinds
from tests.simulator.api.objects import Objects
from tests.simulator.api.server import running
from tests.simulator.tools import helm

pytestmark = pytest.mark.integration

CLUSTER = """
apiVersion: ray.io/v1
kind: RayCluster
metadata: {name: r, labels: {a: b}}
spec: {headGroupSpec: {template: {spec: {containers: [{name: head}]}}}}
"""
Kubectl = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def kubectl(kinds: Kinds, tmp_path: Path) -> Iterator[Kubectl]:
    path = helm.binary("kubectl")
    (tmp_path / "cluster.yaml").write_text(CLUSTER)
    with running(Objects(kinds), lambda namespace, pod: f"log of {namespace}/{pod}\n") as server:
        environment = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(tmp_path),
            "KUBECONFIG": str(server.kubeconfig(tmp_path)),
        }

        def run(*arguments: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [path, *arguments],
                env=environment,
                cwd=tmp_path,
                capture_output=True,
                text=True,
                timeout=60,
            )

        yield run


def test_apply_patch_get_delete(kubectl: Kubectl) -> None:
    assert (
        kubectl("apply", "--server-side", "-f", "cluster.yaml").stdout
        == "raycluster.ray.io/r serverside-applied\n"
    )
    assert (
        kubectl(
            "patch", "raycluster", "r", "--type", "merge", "-p", '{"spec": {"suspend": true}}'
        ).returncode
        == 0
    )
    found = json.loads(kubectl("get", "rayclusters", "-l", "a=b", "-o", "json").stdout)["items"]
    assert [(body["spec"]["suspend"], body["metadata"]["generation"]) for body in found] == [
        (True, 2)
    ]
    assert (
        json.loads(kubectl("get", "rayclusters", "-l", "a!=b", "-o", "json").stdout)["items"] == []
    )
    assert kubectl("delete", "raycluster", "r", "--timeout", "10s").returncode == 0
    assert "not found" in kubectl("get", "raycluster", "r").stderr


def test_secrets_in_a_namespace_of_their_own(kubectl: Kubectl) -> None:
    assert (
        "not found"
        in kubectl("create", "secret", "generic", "s", "-n", "own", "--from-literal=token=x").stderr
    )
    assert kubectl("create", "namespace", "own").returncode == 0
    assert (
        kubectl(
            "create", "secret", "generic", "s", "-n", "own", "--from-literal=token=x"
        ).returncode
        == 0
    )
    assert json.loads(kubectl("get", "secret", "s", "-n", "own", "-o", "json").stdout)["data"] == {
        "token": "eA=="
    }
    assert kubectl("delete", "namespace", "own", "--timeout", "10s").returncode == 0
    assert "not found" in kubectl("get", "secret", "s", "-n", "own").stderr


def test_a_bad_object_is_refused(kubectl: Kubectl, tmp_path: Path) -> None:
    (tmp_path / "cluster.yaml").write_text(
        CLUSTER.replace("{name: head}", "{name: head, comand: [x]}")
    )
    for way in ([], ["--server-side"]):
        ended = kubectl("apply", *way, "-f", "cluster.yaml")
        assert (
            ended.returncode != 0
            and 'unknown field "spec.headGroupSpec.template.spec.containers[0].comand"'
            in ended.stderr
        )


def test_logs(kubectl: Kubectl, tmp_path: Path) -> None:
    (tmp_path / "pod.yaml").write_text(
        "{apiVersion: v1, kind: Pod, metadata: {name: p},"
        " spec: {containers: [{name: a, image: a}]}}"
    )
    assert kubectl("apply", "-f", "pod.yaml").returncode == 0
    assert kubectl("logs", "p").stdout == "log of default/p\n"
