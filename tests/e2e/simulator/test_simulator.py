"""Tests the simulator without Ray, on a small chart with pods, volumes, Services and hooks."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.simulator.api.kinds import Kinds, builtin
from tests.simulator.controller import Controller, simulator
from tests.simulator.node.process import leftovers
from tests.simulator.tools import helm, small_chart

pytestmark = pytest.mark.integration

SERVER = """
apiVersion: v1
kind: Service
metadata: {name: pages}
spec: {selector: {app: pages}, ports: [{port: 8080, targetPort: http}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: pages}
data: {index.html: "{{ .Values.page }} at http://pages:8080/ in /srv/pages"}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: pages}
spec:
  replicas: 1
  selector: {matchLabels: {app: pages}}
  template:
    metadata: {labels: {app: pages}, annotations: {page: {{ .Values.page }}}}
    spec:
      initContainers:
        - name: wait
          command: [python, -c, "open('/scratch/first', 'w')"]
          volumeMounts: [{name: scratch, mountPath: /scratch}]
      containers:
        - name: server
          image: python
          command: [python, -m, http.server, --bind, "0.0.0.0", --directory, /srv/pages, "18080"]
          ports: [{name: http, containerPort: 18080}]
          readinessProbe: {httpGet: {port: http, path: /index.html}}
          volumeMounts: [{name: pages, mountPath: /srv/pages}]
      volumes: [{name: pages, configMap: {name: pages}}, {name: scratch, emptyDir: {}}]
"""
TEST = """
apiVersion: v1
kind: Pod
metadata:
  name: ask
  annotations: {helm.sh/hook: test, helm.sh/hook-delete-policy: before-hook-creation}
spec:
  restartPolicy: Never
  containers:
    - name: ask
      image: python
      env:
        - {name: URL, value: "http://pages.default.svc.cluster.local:8080/index.html"}
        - {name: WORD, valueFrom: {secretKeyRef: {name: word, key: word}}}
      command: [python, -c]
      args:
        - >-
          import os, urllib.request as r;
          t = r.urlopen(os.environ['URL']).read().decode();
          print(t); exit(os.environ['WORD'] not in t)
"""
JOB = """
apiVersion: batch/v1
kind: Job
metadata:
  name: once
  annotations: {helm.sh/hook: pre-install, helm.sh/hook-delete-policy: hook-succeeded}
spec:
  backoffLimit: {{ .Values.retries }}
  template:
    spec:
      restartPolicy: Never
      containers:
        - name: once
          command: [python, -c]
          args:
            - >-
              import pathlib; p = pathlib.Path('/data/seen');
              s = p.exists(); p.touch(); exit(not s)
          volumeMounts: [{name: data, mountPath: /data}]
      volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]
"""


@pytest.fixture
def chart(tmp_path: Path) -> Path:
    return small_chart.write(
        tmp_path / "small", "page: one\nretries: 1\n", {"server": SERVER, "test": TEST, "job": JOB}
    )


@pytest.fixture(params=["helm", "helm3"])
def cluster(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[helm.Helm, Controller]]:
    path = helm.binary(request.param)
    with simulator(Kinds(builtin())) as (controller, server):
        secrets = controller.objects.kinds.of("v1", "Secret")
        controller.objects.create(
            secrets, "default", {"metadata": {"name": "word"}, "stringData": {"word": "one"}}
        )
        yield helm.Helm(path, server.kubeconfig(tmp_path), tmp_path), controller


def test_a_rendered_chart_runs_and_ends(cluster: tuple[helm.Helm, Controller], chart: Path) -> None:
    cli, controller = cluster
    # The chart's pre-install hook is a Job. The Job's first pod writes a file and fails. The second
    # pod finds this file and succeeds.
    cli.do("install", "r", str(chart), "--wait", "--timeout", "60s")
    address = controller.kubelet.services.address("default", "pages", 8080)
    assert (
        cli.do("test", "r", "--timeout", "60s", "--logs")
        .rstrip()
        .endswith(address.join(("one at http://", "/ in ")) + page_root(controller))
    )
    cli.do("upgrade", "r", str(chart), "--set", "page=two", "--wait", "--timeout", "60s")
    ended = cli.run("test", "r", "--timeout", "60s")
    assert ended.status != 0, "the page no longer has the Secret's word, so helm test must fail"
    assert "two at" in controller.kubelet.logs("default", "ask")
    cli.do("rollback", "r", "1", "--wait", "--timeout", "60s")
    cli.do("test", "r", "--timeout", "60s")
    cli.do("uninstall", "r", "--wait")
    controller.stop()
    assert leftovers(controller.mark) == []


def page_root(controller: Controller) -> str:
    """Return the path, on this machine, of the pod's directory /srv/pages."""
    pods = controller.objects.kinds.of("v1", "Pod")
    [body] = [
        body
        for body in controller.objects.list(pods)
        if body["metadata"].get("labels") == {"app": "pages"}
    ]
    pod = controller.kubelet.pod(body)
    assert pod is not None
    return pod.text("/srv/pages", body["spec"]["containers"][0])


def test_a_failing_hook_fails_the_installation(
    cluster: tuple[helm.Helm, Controller], chart: Path
) -> None:
    cli, _ = cluster
    ended = cli.run("install", "r", str(chart), "--set", "retries=0", "--timeout", "60s")
    assert ended.status != 0 and "pre-install" in ended.err


def test_a_pod_waits_for_its_secret(cluster: tuple[helm.Helm, Controller], chart: Path) -> None:
    cli, controller = cluster
    secrets, pods = (controller.objects.kinds.of("v1", name) for name in ("Secret", "Pod"))
    cli.do("install", "r", str(chart), "--wait", "--timeout", "60s")
    controller.objects.delete(secrets, "default", "word")
    ended = cli.run("test", "r", "--timeout", "3s")
    assert ended.status != 0
    waiting = controller.objects.get(pods, "default", "ask")["status"]["containerStatuses"][0][
        "state"
    ]["waiting"]
    assert waiting == {
        "reason": "CreateContainerConfigError",
        "message": 'secrets "word" not found',
    }
