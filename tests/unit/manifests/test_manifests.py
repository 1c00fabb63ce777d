"""Tests every manifest: its file name, its first line, its schema and its references.

The first line is a comment that says what the manifest is for, or which command applies it.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.helm.pods import expand
from tests.unit.helm.render import render
from tests.unit.helm.security import amount
from tests.unit.manifests import placement

ROOT = Path(__file__).parents[3]
MANIFESTS = ROOT / "manifests"
FILES = sorted(MANIFESTS.glob("*.yaml"))
AWS = {"bucketlifecycle", "bucketpolicy", "iampolicy"}
"""Files of these kinds are inputs of AWS commands. They hold no Kubernetes objects."""
CLOUD = AWS | {"nodepool", "ec2nodeclass", "aksnodeclass", "computeclass"}
"""Files of these kinds work on only one cloud, so the kustomization omits these files."""


def kind(path: Path) -> str:
    return path.name.partition(".")[0]


def doc(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text())


OBJECTS = [path for path in FILES if kind(path) not in AWS and path.name != "kustomization.yaml"]


def by(prefix: str) -> list[dict[str, Any]]:
    return [doc(path) for path in OBJECTS if kind(path) == prefix]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_name_and_first_line(path: Path) -> None:
    assert re.fullmatch(r"[a-z0-9]+\.[a-z0-9-]+\.yaml|kustomization\.yaml", path.name)
    first = path.read_text().splitlines()[0]
    assert (
        first.startswith("# ")
        and 40 <= len(first) <= 100
        and path.read_text().splitlines()[1] != ""
    )
    assert [entry for entry in MANIFESTS.iterdir() if entry.suffix != ".yaml"] == []


@pytest.mark.parametrize("path", OBJECTS, ids=lambda path: path.name)
def test_a_file_holds_one_object_of_the_kind_in_its_name(path: Path) -> None:
    assert doc(path)["kind"].lower() == kind(path)
    assert len(list(yaml.safe_load_all(path.read_text()))) == 1


def test_the_kustomization_holds_all_manifests_without_a_cloud() -> None:
    listed = doc(MANIFESTS / "kustomization.yaml")["resources"]
    assert sorted(listed) == [
        path.name for path in FILES if kind(path) not in CLOUD and path.name != "kustomization.yaml"
    ]


def test_kubectl_builds_it() -> None:
    places = os.pathsep.join((str(ROOT / ".tools/bin"), os.environ.get("PATH", "")))
    kubectl = shutil.which("kubectl", path=places)
    if kubectl is None:
        pytest.skip("no kubectl: `make tools` brings it")
    built = subprocess.run([kubectl, "kustomize", str(MANIFESTS)], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    objects = [(one["kind"], one["metadata"]["name"]) for one in yaml.safe_load_all(built.stdout)]
    assert (
        len(objects) == len(doc(MANIFESTS / "kustomization.yaml")["resources"]) == len(set(objects))
    )


@pytest.mark.parametrize("path", OBJECTS, ids=lambda path: path.name)
def test_objects_fit_their_definitions(path: Path) -> None:
    """Check built-in objects against Kubernetes' strict schemas, and custom ones against CRDs.

    A custom resource that only one cloud has is not checked if its CRD is missing.
    """
    crd = pytest.importorskip(
        "tests.unit.helm.crd", reason="the checker of custom resources is not here"
    )
    schemas = pytest.importorskip("tests.unit.helm.schemas")
    one = doc(path)
    if not crd.is_custom(one):
        assert [
            fault for version in schemas.VERSIONS for fault in schemas.faults(one, version)
        ] == []
    elif (one["apiVersion"], one["kind"]) in crd.definitions():
        assert crd.faults(one) == []
    else:
        assert kind(path) in CLOUD, f"AWARES_CRDS lacks {one['apiVersion']} {one['kind']}"


def test_queue_objects_name_each_other() -> None:
    (queue,), (local,), (namespace,) = by("clusterqueue"), by("localqueue"), by("namespace")
    flavors = {flavor["metadata"]["name"] for flavor in by("resourceflavor")}
    (group,) = queue["spec"]["resourceGroups"]
    assert {flavor["name"] for flavor in group["flavors"]} == flavors
    for flavor in group["flavors"]:
        assert [resource["name"] for resource in flavor["resources"]] == group["coveredResources"]
    assert local["spec"]["clusterQueue"] == queue["metadata"]["name"]
    assert local["metadata"]["namespace"] == namespace["metadata"]["name"]
    assert (
        queue["spec"]["namespaceSelector"]["matchLabels"].items()
        <= namespace["metadata"]["labels"].items()
    )


def documented_queue() -> dict[str, Any]:
    """Return the chart's values that helm/docs/install.md shows for Kueue."""
    blocks = re.findall(r"(?m)(?:^    .*\n)+", (ROOT / "helm/docs/install.md").read_text())
    (block,) = [block for block in blocks if "kind: kueue" in block]
    return yaml.safe_load(block)


@pytest.mark.parametrize("target", placement.TARGETS)
def test_the_queue_admits_each_job_with_every_pod_in_its_own_pool(target: str) -> None:
    """Check that the queue covers exactly the resources that pods request.

    Also check that the requests of each Ray cluster fit the quota of each pool.
    """
    (queue,) = by("clusterqueue")
    (group,) = queue["spec"]["resourceGroups"]
    pools = {
        flavor["metadata"]["name"]: flavor["spec"]["nodeLabels"]["awares-train/pool"]
        for flavor in by("resourceflavor")
    }
    quotas = {
        (pools[flavor["name"]], resource["name"]): amount(resource["nominalQuota"])
        for flavor in group["flavors"]
        for resource in flavor["resources"]
    }
    values = {"store": {"bucket": "runs"}, "target": target} | documented_queue()
    docs = [doc for doc in render(values, "two-pools") if doc["kind"] in ("RayJob", "RayService")]
    jobs = [doc["spec"] for doc in docs if doc["kind"] == "RayJob"]
    assert ["suspend" in job for job in jobs] == [False], "Kueue starts suspended jobs in any order"
    requested = {name for pod in expand(docs) for name in placement.requests(pod)}
    assert requested == set(group["coveredResources"])
    for resource in requested:
        for owner, sums in placement.used(docs, resource).items():
            over = {pool: value for pool, value in sums.items() if value > quotas[pool, resource]}
            assert over == {}, f"{owner} requests too much {resource}"


def test_node_pools_carry_the_labels_that_flavors_select() -> None:
    pools = {
        pool["spec"]["template"]["metadata"]["labels"]["awares-train/pool"]
        for pool in by("nodepool")
    }
    classes = {
        one["spec"]["nodePoolConfig"]["nodeLabels"]["awares-train/pool"]
        for one in by("computeclass")
    }
    flavors = {flavor["spec"]["nodeLabels"]["awares-train/pool"] for flavor in by("resourceflavor")}
    assert pools == classes == flavors == {"learner", "rollout", "endpoint", "cpu"}


def test_gpu_pools_are_tainted_and_flavors_tolerate_it() -> None:
    for pool in by("nodepool"):
        if pool["metadata"]["name"] == "awares-cpu":
            assert "taints" not in pool["spec"]["template"]["spec"]
            continue
        assert {"key": "nvidia.com/gpu", "value": "true", "effect": "NoSchedule"} in pool["spec"][
            "template"
        ]["spec"]["taints"]
        assert pool["spec"]["limits"]["nvidia.com/gpu"] == 8
    for flavor in by("resourceflavor"):
        assert len(flavor["spec"].get("tolerations", [])) == len(
            flavor["spec"].get("nodeTaints", [])
        )


def test_each_cloud_has_the_same_pools() -> None:
    names = {path.name for path in FILES if kind(path) in ("nodepool", "computeclass")}
    assert {name.partition(".")[2] for name in names} == {
        f"{cloud}-{pool}.yaml"
        for cloud in ("eks", "gke", "aks")
        for pool in ("learner", "rollout-spot", "endpoint", "cpu")
    }


def test_the_gateway_accepts_routes_of_the_namespace() -> None:
    (gateway,), (namespace,) = by("gateway"), by("namespace")
    for listener in gateway["spec"]["listeners"]:
        allowed = listener["allowedRoutes"]["namespaces"]["selector"]["matchLabels"]
        assert allowed.items() <= namespace["metadata"]["labels"].items()
        assert listener["tls"]["mode"] == "Terminate"


def test_priorities_are_ordered() -> None:
    value = {
        one["metadata"]["name"]: one["value"]
        for one in by("priorityclass") + by("workloadpriorityclass")
    }
    assert value["awares-endpoint"] > value["awares-learner"] > value["awares-rollout"] > 0
    assert value["awares-training"] > value["awares-evaluation"]
