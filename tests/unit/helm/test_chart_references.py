"""Tests that the release or its user creates every object that the rendered chart names.

Also tests that the jobs accept the chart's setup.toml.
"""

import copy
import re
import shlex
from pathlib import Path

import pytest

from awares_platform.config import load
from tests.unit.helm.cases import CASES, Case
from tests.unit.helm.pods import containers
from tests.unit.helm.references import World, cluster_specs, faults
from tests.unit.helm.render import Doc, of_kind
from tests.unit.helm.samples import document


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_reference_leads_somewhere(case: Case) -> None:
    assert faults(World.of(case.docs(), case.outside)) == []


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_jobs_accept_every_setup(case: Case, tmp_path: Path) -> None:
    """Check that the chart's setup.toml is valid, both alone and with the arguments of each job."""
    setup = tmp_path / "setup.toml"
    texts = [
        doc["data"]["setup.toml"]
        for doc in of_kind(case.docs(), "ConfigMap")
        if "setup.toml" in doc["data"]
    ]
    assert len(texts) == 1
    setup.write_text(texts[0])
    store = load(setup).store
    assert store.bucket == (case.values["store"]["bucket"])
    for doc in of_kind(case.docs(), "RayJob", "RayCronJob"):
        entrypoint = doc["spec"].get("jobTemplate", doc["spec"])["entrypoint"]
        for command in re.findall(
            r"python jobs/\w+\.py --config ([^\s\"']+)([^&|;\"']*)", entrypoint
        ):
            assert command[0] == "/etc/awares/setup.toml"
            load(setup, shlex.split(command[1]))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_variables_of_a_setup_are_set(case: Case) -> None:
    """Check that the endpoint's pods set the environment variable that `serve.token_env` names.

    The variable with the judge's key is not checked, because the user sets it.
    """
    for service in of_kind(case.docs(), "RayService"):
        named = re.findall(r"token_env: (\S+)", service["spec"]["serveConfigV2"])
        for group in _groups(service):
            names = {
                entry["name"]
                for container in containers(group["template"])
                for entry in container.get("env") or ()
            }
            assert {*named} <= names, group.get("groupName", "head")


def test_replicas_and_no_other_pods_mount_the_keys_file() -> None:
    [case] = [case for case in CASES if case.name == "a key for each client"]
    [service] = of_kind(case.docs(), "RayService")
    [path] = re.findall(r"keys_file: (\S+)", service["spec"]["serveConfigV2"])
    for group in _groups(service):
        mounts = [
            mount["mountPath"]
            for container in containers(group["template"])
            for mount in container.get("volumeMounts") or ()
        ]
        assert (str(Path(path).parent) in mounts) == ("groupName" in group)
    others = [doc for doc in case.docs() if doc is not service]
    assert "keys.json" not in repr([doc for doc in others if doc["kind"] != "ConfigMap"])


def _groups(doc: Doc) -> list[Doc]:
    return [
        group
        for spec in cluster_specs(doc)
        for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"])
    ]


def test_the_endpoint_and_awares_serve_have_one_configuration() -> None:
    """Check that each section in the RayService's application is the same as in setup.toml."""
    import tomllib

    import yaml

    for case in CASES:
        for service in of_kind(case.docs(), "RayService"):
            application = yaml.safe_load(service["spec"]["serveConfigV2"])["applications"][0]
            text = next(
                doc["data"]["setup.toml"]
                for doc in of_kind(case.docs(), "ConfigMap")
                if "setup.toml" in doc["data"]
            )
            setup = tomllib.loads(text)
            assert {section: setup[section] for section in application["args"]} == application[
                "args"
            ], case.name
            assert {"run", "store", "serve"} <= application["args"].keys()


HEAD = "headGroupSpec.template.spec"
FULL = document(
    "RayCluster",
    {
        f"{HEAD}.containers.0.env": [
            {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "store", "key": "id"}}}
        ],
        f"{HEAD}.containers.0.ports": [{"name": "dashboard", "containerPort": 8265}],
        f"{HEAD}.containers.0.volumeMounts": [{"name": "setup", "mountPath": "/etc/awares"}],
        f"{HEAD}.volumes": [{"name": "setup", "configMap": {"name": "setup"}}],
        "headGroupSpec.template.metadata": {"labels": {"app": "ray"}},
        "authOptions": {"mode": "token", "secretName": "token"},
    },
)
JOB_ = document(
    "RayJob",
    {
        "entrypoint": "python jobs/grpo.py --config /etc/awares/setup.toml",
        "clusterSelector": {"ray.io/cluster": "sample"},
    },
)
JOB_["spec"].pop("rayClusterSpec")
SETUP = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "setup"},
    "data": {"setup.toml": 'a = "http://dashboard:80"'},
}
SERVICE_ = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "dashboard"},
    "spec": {
        "selector": {"app": "ray", "ray.io/node-type": "head"},
        "ports": [{"port": 80, "targetPort": "dashboard"}],
    },
}
BUDGET = {
    "apiVersion": "policy/v1",
    "kind": "PodDisruptionBudget",
    "metadata": {"name": "b"},
    "spec": {"selector": {"matchLabels": {"app": "ray"}}},
}
MONITOR = {
    "apiVersion": "monitoring.coreos.com/v1",
    "kind": "PodMonitor",
    "metadata": {"name": "m"},
    "spec": {
        "selector": {"matchLabels": {"app": "ray"}},
        "podMetricsEndpoints": [{"port": "dashboard"}],
    },
}
ROUTE = {
    "apiVersion": "gateway.networking.k8s.io/v1",
    "kind": "HTTPRoute",
    "metadata": {"name": "r"},
    "spec": {"rules": [{"backendRefs": [{"name": "dashboard", "port": 80}]}]},
}
GREEN = {
    "cluster": FULL,
    "job": JOB_,
    "setup": SETUP,
    "service": SERVICE_,
    "budget": BUDGET,
    "monitor": MONITOR,
    "route": ROUTE,
}
OUTSIDE = {"Secret/store": {"id"}, "Secret/token": {"auth_token"}}


def changed(part: str, path: str, value: object) -> list[Doc]:
    """Return a copy of the documents in GREEN, with one key of the document `part` changed.

    `path` is a dotted key, in which a number is the index of a list item.
    """
    docs = copy.deepcopy(GREEN)
    *parents, last = path.split(".")
    place = docs[part]
    for key in parents:
        place = place[int(key)] if isinstance(place, list) else place[key]
    place[int(last) if isinstance(place, list) else last] = value
    return [*docs.values()]


def test_the_green_set_passes() -> None:
    assert faults(World.of([*GREEN.values()], OUTSIDE)) == []


CONTAINER = f"spec.{HEAD}.containers.0"
RED = [
    ("cluster", f"spec.{HEAD}.volumes.0.configMap.name", "other", "there is no ConfigMap other"),
    (
        "cluster",
        f"spec.{HEAD}.volumes.0.configMap",
        {"name": "setup", "items": [{"key": "x", "path": "x"}]},
        "ConfigMap setup has no key x",
    ),
    (
        "cluster",
        f"{CONTAINER}.env.0.valueFrom.secretKeyRef.name",
        "other",
        "there is no Secret other",
    ),
    (
        "cluster",
        f"{CONTAINER}.env.0.valueFrom.secretKeyRef.key",
        "other",
        "Secret store has no key other",
    ),
    (
        "cluster",
        f"{CONTAINER}.envFrom",
        [{"configMapRef": {"name": "gone"}}],
        "there is no ConfigMap gone",
    ),
    ("cluster", f"{CONTAINER}.env", [{"name": "A", "value": "1"}] * 2, "A is set twice"),
    (
        "cluster",
        f"{CONTAINER}.env.0",
        {"name": "A", "value": "http://other:80"},
        "there is no Service other",
    ),
    (
        "cluster",
        f"{CONTAINER}.env.0",
        {"name": "A", "value": "http://dashboard:81"},
        "Service dashboard has no port 81",
    ),
    (
        "cluster",
        f"{CONTAINER}.env.0",
        {"name": "A", "value": "dashboard.other.svc:80"},
        "is not in the namespace training",
    ),
    ("cluster", f"{CONTAINER}.args", ["echo $(GONE)"], "uses $GONE, which nothing sets"),
    (
        "cluster",
        f"{CONTAINER}.args",
        ["python -m awares_platform.gone"],
        "runs the module awares_platform.gone",
    ),
    (
        "cluster",
        f"{CONTAINER}.volumeMounts.0.name",
        "other",
        "/etc/awares mounts other, which is no volume",
    ),
    ("cluster", f"{CONTAINER}.volumeMounts", [], "volume setup is mounted nowhere"),
    ("cluster", f"spec.{HEAD}.serviceAccountName", "other", "there is no ServiceAccount other"),
    ("cluster", f"spec.{HEAD}.imagePullSecrets", [{"name": "other"}], "there is no Secret other"),
    ("cluster", "spec.authOptions.secretName", "store", "Secret store has no key auth_token"),
    (
        "job",
        "spec.entrypoint",
        "python jobs/grop.py",
        "runs jobs/grop.py, which is not in the repository",
    ),
    (
        "job",
        "spec.entrypoint",
        "python jobs/grpo.py --config /etc/awares/other.toml",
        "/etc/awares/other.toml is in no volume",
    ),
    ("job", "spec.clusterSelector", {"ray.io/cluster": "other"}, "there is no RayCluster other"),
    ("setup", "data", {"setup.toml": 'a = "http://gone:80"'}, "there is no Service gone"),
    ("service", "spec.selector", {"app": "other"}, "selects no pod"),
    ("service", "spec.ports.0.targetPort", "serve", "has no port serve"),
    (
        "budget",
        "spec.selector",
        {"matchLabels": {"app": "other"}},
        "PodDisruptionBudget/b: selects no pod",
    ),
    ("monitor", "spec.selector", {"matchLabels": {"app": "other"}}, "PodMonitor/m: selects no pod"),
    (
        "monitor",
        "spec.podMetricsEndpoints.0.port",
        "metrics",
        "no selected pod has the port metrics",
    ),
    (
        "route",
        "spec.rules.0.backendRefs.0.port",
        8000,
        "there is no Service dashboard with port 8000",
    ),
]


@pytest.mark.parametrize(
    ("part", "path", "value", "sentence"), RED, ids=[sentence for *_, sentence in RED]
)
def test_a_broken_reference_is_reported(part: str, path: str, value: object, sentence: str) -> None:
    assert sentence in "\n".join(faults(World.of(changed(part, path, value), OUTSIDE)))
