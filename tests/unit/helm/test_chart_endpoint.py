"""Tests values below `endpoint`, and what the chart renders for the endpoint.

Most tests cover features that no preset uses, so no golden file shows these features.
"""

from typing import Any

import pytest
import yaml

from tests.unit.helm.cases import CASES, FIXED, Case, docs, on_base
from tests.unit.helm.pods import containers, expand
from tests.unit.helm.references import cluster_specs
from tests.unit.helm.render import Doc, of_kind, render
from tests.unit.helm.security import amount
from tests.unit.helm.selectors import selected


def service(changes: dict[str, Any]) -> Doc:
    return of_kind(render(on_base({"endpoint": changes})), "RayService")[0]["spec"]


def test_an_upgrade_doubles_no_gpus_unless_it_is_asked_to() -> None:
    assert service({})["upgradeStrategy"] == {"type": "None"}
    incremental = of_kind(docs("incremental upgrade"), "RayService")[0]["spec"]
    assert incremental["upgradeStrategy"]["type"] == "NewClusterWithIncrementalUpgrade"
    assert incremental["upgradeStrategy"]["clusterUpgradeOptions"] == {
        "maxSurgePercent": 20,
        "stepSizePercent": 10,
        "intervalSeconds": 30,
        "gatewayClassName": "istio",
    }


def test_the_endpoints_scale_reaches_serve() -> None:
    spec = service(
        {"autoscaling": {"minReplicas": 1, "maxReplicas": 3, "targetOngoingRequests": 4}}
    )
    scale = yaml.safe_load(spec["serveConfigV2"])["applications"][0]["args"]["serve"]["autoscaling"]
    assert (scale["min_replicas"], scale["max_replicas"], scale["target_ongoing_requests"]) == (
        1,
        3,
        4,
    )


def test_a_new_setup_changes_the_application_and_not_the_pods() -> None:
    """KubeRay applies `serveConfigV2` in place, but starts a new cluster for `rayClusterConfig`."""
    first, second = (
        of_kind(render(on_base({"setup": {"serve": {"policy": policy}}})), "RayService")[0]["spec"]
        for policy in ("base", "sft")
    )
    assert first["serveConfigV2"] != second["serveConfigV2"]
    assert first["rayClusterConfig"] == second["rayClusterConfig"]


def test_a_new_chart_version_changes_no_pod_of_the_endpoint() -> None:
    """A label with the chart's version would change all pod templates with each new version."""
    for doc in docs("default"):
        for spec in cluster_specs(doc):
            for one in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
                labels = one["template"]["metadata"]["labels"]
                assert not {"helm.sh/chart", "app.kubernetes.io/version"} & labels.keys()


def test_service_ingress_and_route_lead_to_the_replicas() -> None:
    found = docs("named and labelled by the user")
    (front,) = [
        doc for doc in of_kind(found, "Service") if doc["metadata"]["name"] == "vision-endpoint"
    ]
    assert front["spec"]["ports"][0]["port"] == 80 and front["metadata"]["annotations"] == {
        "example.org/lb": "internal"
    }
    assert front["spec"]["selector"]["ray.io/serve"] == "true"
    (route,) = of_kind(found, "HTTPRoute")
    assert route["spec"]["rules"][0]["backendRefs"][0] == {"name": "vision-endpoint", "port": 80}
    (ingress,) = of_kind(docs("ingress and HTTPRoute"), "Ingress")
    assert ingress["spec"]["tls"] == [
        {"hosts": ["vision.example.org"], "secretName": "certificate"}
    ]


def test_names_labels_and_the_digest_are_the_users() -> None:
    found = docs("named and labelled by the user")
    assert all(doc["metadata"]["name"].startswith("vision") for doc in found)
    ours = expand(found)
    assert all(
        pod["metadata"]["labels"]["team"] == "vision"
        for pod in ours
        if "ray.io/node-type" in pod["metadata"]["labels"]
    )
    images = {container["image"] for pod in ours for container in containers(pod)}
    assert images == {f"registry.example.org/awares@sha256:{'a' * 64}"}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_each_head_has_one_budget(case: Case) -> None:
    """Kubernetes refuses to evict a pod that two PodDisruptionBudgets select.

    Every budget sets `minAvailable` to an integer. Budgets with other settings need a `scale`
    subresource, which KubeRay's resources lack.
    """
    budgets = of_kind(case.docs(), "PodDisruptionBudget")
    for pod in expand(case.docs()):
        over = [one["spec"] for one in budgets if selected([pod], one["spec"]["selector"])]
        assert (
            len(over) == 1
            if pod["metadata"]["labels"].get("ray.io/node-type") == "head"
            else len(over) <= 1
        )
        assert all(
            isinstance(spec["minAvailable"], int) and "maxUnavailable" not in spec for spec in over
        )


def test_budgets_can_be_left_out() -> None:
    assert (
        of_kind(
            render(on_base({"podDisruptionBudgets": {"enabled": False}})), "PodDisruptionBudget"
        )
        == []
    )


def test_cloud_identities_are_annotations_of_service_accounts() -> None:
    accounts = {
        doc["metadata"]["name"].rpartition("-")[2]: doc
        for doc in of_kind(docs("cloud identity"), "ServiceAccount")
    }
    assert accounts["runs"]["metadata"]["annotations"] == {
        "eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/training"
    }
    assert accounts["endpoint"]["metadata"]["annotations"] == {
        "eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/reading"
    }
    text = yaml.safe_dump_all(docs("cloud identity"))
    assert "AWS_ACCESS_KEY_ID" not in text and "AWS_SECRET_ACCESS_KEY" not in text


def test_external_secrets_write_the_secret_that_pods_read() -> None:
    (found,) = of_kind(docs("external secret"), "ExternalSecret")
    assert found["spec"]["secretStoreRef"] == {"name": "vault", "kind": "ClusterSecretStore"}
    keys = {entry["secretKey"]: entry["remoteRef"] for entry in found["spec"]["data"]}
    assert (
        keys["AWS_ACCESS_KEY_ID"] == {"key": "training/s3", "property": "AWS_ACCESS_KEY_ID"}
        and len(keys) == 2
    )


def test_seaweedfs_asks_for_no_telemetry_and_keeps_its_data_when_told() -> None:
    (store,) = of_kind(docs("SeaweedFS that keeps its data"), "StatefulSet")
    assert "-master.telemetry=false" in store["spec"]["template"]["spec"]["containers"][0]["args"]
    (claim,) = store["spec"]["volumeClaimTemplates"]
    assert amount(claim["spec"]["resources"]["requests"]["storage"]) == 10 * 2**30
    (trial,) = of_kind(docs("trial"), "StatefulSet")
    assert "volumeClaimTemplates" not in trial["spec"]


def test_large_numbers_stay_integers() -> None:
    """Helm reads numbers as floats. Without a conversion, it would print 10000000 as 1e+07."""
    found = render(
        on_base(
            FIXED,
            {"setup": {"serve": {"max_request_bytes": 33554432, "max_image_pixels": 100000000}}},
        )
    )
    text = next(
        doc["data"]["setup.toml"]
        for doc in of_kind(found, "ConfigMap")
        if "setup.toml" in doc["data"]
    )
    assert "max_request_bytes = 33554432" in text and "max_image_pixels = 100000000" in text
    assert "33554432" in of_kind(found, "RayService")[0]["spec"]["serveConfigV2"]
