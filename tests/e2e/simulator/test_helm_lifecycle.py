"""Tests that helm 4 and helm 3 install, upgrade, roll back and uninstall a small chart.

The tests run against the simulator's API server. No pod runs.
"""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.simulator.api.kinds import Kinds
from tests.simulator.api.objects import NotFound, Objects
from tests.simulator.api.server import running
from tests.simulator.controllers import replica_sets
from tests.simulator.tools import helm, small_chart

pytestmark = pytest.mark.integration

CLUSTER = """
apiVersion: ray.io/v1
kind: RayCluster
metadata: {name: {{ .Release.Name }}}
spec:
  rayVersion: "2.60.0"
  headGroupSpec:
    template: {spec: {containers: [{name: head, image: {{ .Values.image | quote }}}]}}
"""
SETTINGS = """
apiVersion: v1
kind: ConfigMap
metadata: {name: {{ .Release.Name }}-settings}
data:
  image: {{ .Values.image | quote }}
  {{- if .Values.extra }}
  extra: "yes"
  {{- end }}
"""
TOKEN = """
{{- $old := lookup "v1" "Secret" .Release.Namespace (printf "%s-token" .Release.Name) }}
apiVersion: v1
kind: Secret
metadata: {name: {{ .Release.Name }}-token, annotations: {helm.sh/resource-policy: keep}}
data: {token: {{ if $old }}{{ $old.data.token }}{{ else }}{{ randAlphaNum 20 | b64enc }}{{ end }}}
"""
PROBE = """
apiVersion: v1
kind: Pod
metadata: {name: {{ .Release.Name }}-probe, annotations: {helm.sh/hook: test}}
spec:
  restartPolicy: Never
  containers:
    - name: probe
      image: probe
      env: [{name: B, value: b}, {name: A, value: {{ .Values.image | quote }}}]
"""
DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: {{ .Release.Name }}}
spec:
  replicas: 1
  selector: {matchLabels: {app: a}}
  template:
    metadata: {labels: {app: a}}
    spec:
      containers:
        - name: main
          image: {{ .Values.image | quote }}
          env: [{name: B, value: b}, {name: A, value: {{ .Values.image | quote }}}]
"""


@pytest.fixture
def objects(kinds: Kinds) -> Objects:
    return Objects(kinds)


@pytest.fixture
def chart(tmp_path: Path) -> Path:
    parts = {
        "cluster": CLUSTER,
        "settings": SETTINGS,
        "token": TOKEN,
        "probe": PROBE,
        "deployment": DEPLOYMENT,
    }
    return small_chart.write(tmp_path / "small", "image: one\nextra: true\n", parts)


def realise(objects: Objects, stop: threading.Event) -> None:
    """Play the role of Kubernetes' controllers until `stop` is set.

    A Pod succeeds if its environment variable A is "two". Otherwise the Pod fails. Every Deployment
    becomes available.
    """
    pods, deployments = objects.kinds.of("v1", "Pod"), objects.kinds.of("apps/v1", "Deployment")
    while not stop.wait(0.05):
        for body in objects.list(pods):
            phase = (
                "Succeeded"
                if {"name": "A", "value": "two"} in body["spec"]["containers"][0]["env"]
                else "Failed"
            )
            objects.set_status(pods, "default", body["metadata"]["name"], {"phase": phase})
        for body in objects.list(deployments):
            replica_sets.report(objects, body, ready=1)


@pytest.fixture(params=["helm", "helm3"])
def cli(request: pytest.FixtureRequest, objects: Objects, tmp_path: Path) -> Iterator[helm.Helm]:
    path = helm.binary(request.param)
    stop = threading.Event()
    with running(objects) as server:
        thread = threading.Thread(target=realise, args=(objects, stop))
        thread.start()
        try:
            yield helm.Helm(path, server.kubeconfig(tmp_path), tmp_path)
        finally:
            stop.set()
            thread.join()


def image(objects: Objects) -> str:
    body = objects.get(objects.kinds.of("ray.io/v1", "RayCluster"), "default", "r")
    return body["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["image"]


def test_a_release_lives_and_leaves_nothing(cli: helm.Helm, chart: Path, objects: Objects) -> None:
    settings, secrets = objects.kinds.of("v1", "ConfigMap"), objects.kinds.of("v1", "Secret")
    cli.do("install", "r", str(chart), "--wait", "--timeout", "20s")
    assert image(objects) == "one"
    token = objects.get(secrets, "default", "r-token")["data"]["token"]
    assert cli.run("test", "r", "--timeout", "10s").status != 0, "helm test must fail at first"

    cli.do(
        "upgrade", "r", str(chart), "--set", "image=two,extra=false", "--wait", "--timeout", "20s"
    )
    assert image(objects) == "two"
    assert objects.get(settings, "default", "r-settings")["data"] == {"image": "two"}, (
        "a key that the chart no longer renders must be removed"
    )
    assert objects.get(secrets, "default", "r-token")["data"]["token"] == token, (
        "the upgrade must keep the first token, which `lookup` finds"
    )
    container = objects.get(objects.kinds.of("apps/v1", "Deployment"), "default", "r")["spec"][
        "template"
    ]["spec"]["containers"]
    assert container == [
        {
            "name": "main",
            "image": "two",
            "env": [{"name": "B", "value": "b"}, {"name": "A", "value": "two"}],
        }
    ]
    cli.do("test", "r", "--timeout", "10s")

    cli.do("rollback", "r", "1", "--wait", "--timeout", "20s")
    assert image(objects) == "one"
    assert objects.get(settings, "default", "r-settings")["data"] == {
        "image": "one",
        "extra": "yes",
    }
    assert [row["revision"] for row in cli.read("history", "r")] == [1, 2, 3]
    assert [row["name"] for row in cli.read("list")] == ["r"]

    cli.do("uninstall", "r", "--wait", "--timeout", "20s")
    assert cli.read("list") == []
    assert [body["metadata"]["name"] for body in objects.list(secrets)] == ["r-token"], (
        "only the Secret with `resource-policy: keep` may stay"
    )
    with pytest.raises(NotFound):
        objects.get(objects.kinds.of("ray.io/v1", "RayCluster"), "default", "r")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("headGroupSpec:", "headGroupSpecs:", "headGroupSpec"),
        ('rayVersion: "2.60.0"', "rayVersion: 2", "rayVersion"),
    ],
)
def test_a_bad_custom_resource_is_refused(
    cli: helm.Helm, chart: Path, objects: Objects, old: str, new: str, said: str
) -> None:
    path = chart / "templates" / "cluster.yaml"
    path.write_text(path.read_text().replace(old, new))
    ended = cli.run("install", "r", str(chart))
    assert ended.status != 0 and said in ended.err
    assert objects.list(objects.kinds.of("ray.io/v1", "RayCluster")) == []


def test_owned_objects_go_with_their_owner(objects: Objects) -> None:
    settings = objects.kinds.of("v1", "ConfigMap")
    owner = objects.create(settings, "default", {"metadata": {"name": "owner"}})
    reference = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "name": "owner",
        "uid": owner["metadata"]["uid"],
    }
    child = objects.create(
        settings, "default", {"metadata": {"name": "child", "ownerReferences": [reference]}}
    )
    grandchild = {**reference, "name": "child", "uid": child["metadata"]["uid"]}
    objects.create(
        settings, "default", {"metadata": {"name": "grandchild", "ownerReferences": [grandchild]}}
    )
    objects.create(settings, "default", {"metadata": {"name": "stranger"}})
    objects.delete(settings, "default", "owner")
    assert [body["metadata"]["name"] for body in objects.list(settings)] == ["stranger"]


def test_an_object_of_a_deleted_owner_is_removed(objects: Objects) -> None:
    """The API server removes a new object whose owner has already been deleted."""
    settings = objects.kinds.of("v1", "ConfigMap")
    owner = objects.create(settings, "default", {"metadata": {"name": "owner"}})
    objects.delete(settings, "default", "owner")
    reference = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "name": "owner",
        "uid": owner["metadata"]["uid"],
    }
    objects.create(
        settings, "default", {"metadata": {"name": "late", "ownerReferences": [reference]}}
    )
    assert objects.list(settings) == []
