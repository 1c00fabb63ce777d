"""What a value does: one test per feature that the golden presets do not show."""

from typing import Any

import pytest
import yaml

from tests.unit.helm.cases import CASES, FIXED, GPU, on_base
from tests.unit.helm.references import cluster_specs
from tests.unit.helm.render import Doc, of_kind, render
from tests.unit.helm.security import amount


def docs(name: str) -> tuple[Doc, ...]:
    return next(case for case in CASES if case.name == name).docs()


def cluster(changes: dict[str, Any]) -> Doc:
    """The RayCluster's spec under BASE with changes."""
    return of_kind(render(on_base(changes)), "RayCluster")[0]["spec"]


def group(spec: Doc, name: str) -> Doc:
    return next(one for one in spec["workerGroupSpecs"] if one["groupName"] == name)


def job(changes: dict[str, Any], name: str = "grpo") -> Doc:
    found = of_kind(render(on_base({"jobs": {name: {"enabled": True} | changes}})), "RayJob", "RayCronJob")
    return found[0]["spec"]


def test_the_head_takes_no_work() -> None:
    for case in CASES:
        assert [spec["headGroupSpec"]["resources"]["CPU"] for doc in case.docs() for spec in cluster_specs(doc)].count("0") == sum(
            len(cluster_specs(doc)) for doc in case.docs()
        )


def test_the_autoscaler_is_version_2_with_timeouts_and_priorities() -> None:
    spec = cluster(
        {"cluster": {"autoscaler": {"idleTimeoutSeconds": 77}, "groups": {"rollout": {"idleTimeoutSeconds": 33, "priority": 9}}}}
    )
    assert spec["enableInTreeAutoscaling"] is True
    assert (spec["autoscalerOptions"]["version"], spec["autoscalerOptions"]["idleTimeoutSeconds"]) == ("v2", 77)
    assert (group(spec, "rollout")["idleTimeoutSeconds"], group(spec, "rollout")["priority"]) == (33, 9)
    assert "idleTimeoutSeconds" not in group(spec, "learner") and group(spec, "learner")["priority"] == 10


def test_an_idle_timeout_of_zero_is_a_value() -> None:
    assert group(cluster({"cluster": {"groups": {"rollout": {"idleTimeoutSeconds": 0}}}}), "rollout")["idleTimeoutSeconds"] == 0


def test_a_group_has_its_labels_resources_and_places() -> None:
    own = {"gpus": 2, "labels": {"zone": "a"}, "numCpus": 3, "customResources": {"disk": "1"}, "shm": "3Gi", "objectStoreMemory": 123456789}
    one = group(cluster({"cluster": {"groups": {"rollout": own}}}), "rollout")
    assert one["labels"]["zone"] == "a" and one["resources"] == {"CPU": "3", "disk": "1"}
    assert one["rayStartParams"]["object-store-memory"] == "123456789"
    pod = one["template"]["spec"]
    assert (
        pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"]
        == pod["containers"][0]["resources"]["requests"]["nvidia.com/gpu"]
        == "2"
    )
    assert {"medium": "Memory", "sizeLimit": "3Gi"} in [volume.get("emptyDir") for volume in pod["volumes"]]
    assert pod["nodeSelector"] == GPU["nodeSelector"]


def test_spot_is_a_switch_of_the_rollout_group_alone() -> None:
    spot = {"enabled": True, "nodeSelector": {"spot": "true"}, "tolerations": [{"key": "spot", "operator": "Exists"}]}
    off, on = cluster({}), cluster({"cluster": {"groups": {"rollout": {"spot": spot}}}})
    pod = group(on, "rollout")["template"]["spec"]
    assert pod["nodeSelector"]["spot"] == "true" and GPU["nodeSelector"].items() <= pod["nodeSelector"].items()
    assert {"key": "spot", "operator": "Exists"} in pod["tolerations"]
    assert "spot" not in group(off, "rollout")["template"]["spec"]["nodeSelector"]
    assert group(on, "learner") == group(off, "learner")


def test_a_topology_spread_counts_the_groups_own_pods() -> None:
    key = "topology.kubernetes.io/zone"
    pod = group(cluster({"cluster": {"groups": {"rollout": {"topologySpread": key}}}}), "rollout")["template"]["spec"]
    (spread,) = pod["topologySpreadConstraints"]
    assert spread["topologyKey"] == key and spread["labelSelector"]["matchLabels"]["ray.io/group"] == "rollout"


def test_a_disabled_group_is_not_there_and_a_further_one_may_be() -> None:
    spec = cluster({"cluster": {"groups": {"cpu": {"enabled": False}, "judge": {"maxReplicas": 2}}}})
    assert sorted(one["groupName"] for one in spec["workerGroupSpecs"]) == ["judge", "learner", "rollout"]


@pytest.mark.parametrize("mode", ["token", "disabled"])
def test_token_authentication(mode: str) -> None:
    changes = {"auth": {"mode": mode, "existingSecret": "ray" if mode == "token" else None}}
    for doc in render(on_base(changes, {"jobs": {"grpo": {"enabled": True}}})):
        for spec in cluster_specs(doc):
            assert spec["authOptions"] == ({"mode": "token", "secretName": "ray"} if mode == "token" else {"mode": "disabled"})


def test_fault_tolerance_names_redis_and_its_password() -> None:
    for doc in docs("fault tolerance"):
        for spec in cluster_specs(doc):
            options = spec["gcsFaultToleranceOptions"]
            assert options["redisAddress"] == "redis.example.org:6379"
            assert options["redisPassword"]["valueFrom"]["secretKeyRef"] == {"name": "redis", "key": "redis-password"}
            assert int(doc["metadata"]["annotations"]["ray.io/gcs-ft-deletion-timeout"]) == 300


def test_a_job_ends_by_ttl_unless_it_has_rules() -> None:
    assert (job({})["shutdownAfterJobFinishes"], job({})["ttlSecondsAfterFinished"], "deletionStrategy" in job({})) == (True, 600, False)
    assert job({"ttlSecondsAfterFinished": 0})["ttlSecondsAfterFinished"] == 0
    rules = [{"policy": "DeleteSelf", "condition": {"jobStatus": "FAILED", "ttlSeconds": 60}}]
    ruled = job({"deletionRules": rules})
    assert ruled["deletionStrategy"]["deletionRules"] == rules
    assert not {"shutdownAfterJobFinishes", "ttlSecondsAfterFinished"} & {key for key, value in ruled.items() if value}


def test_a_job_has_retries_deadlines_and_suspension() -> None:
    spec = job(
        {"backoffLimit": 5, "activeDeadlineSeconds": 9000000, "preRunningDeadlineSeconds": 60, "suspend": True, "submitterBackoffLimit": 7}
    )
    assert (spec["backoffLimit"], spec["activeDeadlineSeconds"], spec["preRunningDeadlineSeconds"]) == (5, 9000000, 60)
    assert spec["suspend"] is True and spec["submitterConfig"]["backoffLimit"] == 7


def test_a_job_runs_after_those_it_names_with_its_arguments() -> None:
    entrypoint = job({"before": ["curate", "sft"], "args": ["run.name=second"]})["entrypoint"]
    steps = [f"python jobs/{name}.py --config /etc/awares/setup.toml run.name=second" for name in ("curate", "sft", "grpo")]
    assert entrypoint == f'sh -c "{" && ".join(steps)}"'


def test_a_job_takes_the_groups_it_names() -> None:
    groups = job({"groups": ["cpu", "rollout"]}, "evaluate")["rayClusterSpec"]["workerGroupSpecs"]
    assert sorted(one["groupName"] for one in groups) == ["cpu", "rollout"]


def test_a_schedule_makes_a_cron_job_of_the_same_job() -> None:
    spec = job({"schedule": "15 2 * * 1", "timeZone": "Europe/Berlin"}, "evaluate")
    assert (spec["schedule"], spec["timeZone"]) == ("15 2 * * 1", "Europe/Berlin")
    assert spec["jobTemplate"] == job({}, "evaluate")


def test_a_suffix_makes_a_new_job() -> None:
    names = [
        of_kind(render(on_base({"jobs": {"grpo": {"enabled": True, "suffix": suffix}}})), "RayJob")[0]["metadata"]["name"]
        for suffix in ("", "2")
    ]
    assert names == ["awares-awares-train-grpo", "awares-awares-train-grpo-2"]


QUEUE_LABELS = {
    "kueue": {"kueue.x-k8s.io/queue-name": "research", "kueue.x-k8s.io/priority-class": "batch"},
    "volcano": {"volcano.sh/queue-name": "research", "ray.io/priority-class-name": "batch", "ray.io/gang-scheduling-enabled": "true"},
    "yunikorn": {"yunikorn.apache.org/queue": "research", "ray.io/gang-scheduling-enabled": "true"},
}


@pytest.mark.parametrize("kind", QUEUE_LABELS)
def test_a_queue_admits_clusters_and_jobs_but_not_the_endpoint(kind: str) -> None:
    for doc in of_kind(docs(kind), "RayCluster", "RayJob"):
        assert QUEUE_LABELS[kind].items() <= doc["metadata"]["labels"].items()
        assert [spec["enableInTreeAutoscaling"] for spec in cluster_specs(doc)] == [False] * len(cluster_specs(doc))
    (service,) = of_kind(docs(kind), "RayService")
    assert not QUEUE_LABELS[kind].items() <= service["metadata"]["labels"].items()


def test_yunikorn_tells_applications_apart() -> None:
    ids = [doc["metadata"]["labels"]["yunikorn.apache.org/app-id"] for doc in of_kind(docs("yunikorn"), "RayCluster", "RayJob")]
    assert len(ids) == len(set(ids)) == 5


def test_a_queue_may_take_the_endpoint_too() -> None:
    (service,) = of_kind(docs("kueue for the endpoint, too"), "RayService")
    assert QUEUE_LABELS["kueue"].items() <= service["metadata"]["labels"].items()


def test_kueue_places_workers_near_each_other() -> None:
    (found,) = of_kind(docs("kueue"), "RayCluster")
    for one in found["spec"]["workerGroupSpecs"]:
        assert one["template"]["metadata"]["annotations"]["kueue.x-k8s.io/podset-required-topology"] == "example.org/rack"


def test_a_queued_job_says_nothing_of_suspension() -> None:
    """Kueue suspends and releases a job itself; what an upgrade applies must not take that back."""
    assert ["suspend" in doc["spec"] for doc in of_kind(docs("kueue"), "RayJob", "RayCluster")] == [False] * 5


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
    spec = service({"autoscaling": {"minReplicas": 1, "maxReplicas": 3, "targetOngoingRequests": 4}})
    scale = yaml.safe_load(spec["serveConfigV2"])["applications"][0]["args"]["serve"]["autoscaling"]
    assert (scale["min_replicas"], scale["max_replicas"], scale["target_ongoing_requests"]) == (1, 3, 4)


def test_a_new_setup_changes_the_application_and_not_the_pods() -> None:
    """Serve applies serveConfigV2 in place; a changed pod template would need a second cluster."""
    first, second = (
        of_kind(render(on_base({"setup": {"serve": {"policy": policy}}})), "RayService")[0]["spec"] for policy in ("base", "sft")
    )
    assert first["serveConfigV2"] != second["serveConfigV2"]
    assert first["rayClusterConfig"] == second["rayClusterConfig"]


def test_a_new_chart_version_changes_no_pod_of_the_endpoint() -> None:
    """Labels with versions on pods would roll every cluster at each release of the chart."""
    for doc in docs("default"):
        for spec in cluster_specs(doc):
            for one in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
                labels = one["template"]["metadata"]["labels"]
                assert not {"helm.sh/chart", "app.kubernetes.io/version"} & labels.keys()


def test_service_ingress_and_route_lead_to_the_replicas() -> None:
    found = docs("named and labelled by the user")
    (front,) = [doc for doc in of_kind(found, "Service") if doc["metadata"]["name"] == "vision-endpoint"]
    assert front["spec"]["ports"][0]["port"] == 80 and front["metadata"]["annotations"] == {"example.org/lb": "internal"}
    assert front["spec"]["selector"]["ray.io/serve"] == "true"
    (route,) = of_kind(found, "HTTPRoute")
    assert route["spec"]["rules"][0]["backendRefs"][0] == {"name": "vision-endpoint", "port": 80}
    (ingress,) = of_kind(docs("ingress and HTTPRoute"), "Ingress")
    assert ingress["spec"]["tls"] == [{"hosts": ["vision.example.org"], "secretName": "certificate"}]


def test_names_labels_and_the_digest_are_the_users() -> None:
    from tests.unit.helm.pods import containers, expand

    found = docs("named and labelled by the user")
    assert all(doc["metadata"]["name"].startswith("vision") for doc in found)
    ours = expand(found)
    assert all(pod["metadata"]["labels"]["team"] == "vision" for pod in ours if "ray.io/node-type" in pod["metadata"]["labels"])
    images = {container["image"] for pod in ours for container in containers(pod)}
    assert images == {f"registry.example.org/awares@sha256:{'a' * 64}"}


def test_budgets_keep_the_heads() -> None:
    heads = [doc["spec"] for doc in of_kind(docs("default"), "PodDisruptionBudget") if doc["spec"].get("maxUnavailable") == 0]
    assert [spec["selector"]["matchLabels"]["ray.io/node-type"] for spec in heads] == ["head"]
    off = render(on_base({"podDisruptionBudgets": {"enabled": False}}))
    assert of_kind(off, "PodDisruptionBudget") == []


def test_cloud_identities_are_annotations_of_service_accounts() -> None:
    accounts = {doc["metadata"]["name"].rpartition("-")[2]: doc for doc in of_kind(docs("cloud identity"), "ServiceAccount")}
    assert accounts["runs"]["metadata"]["annotations"] == {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/training"}
    assert accounts["endpoint"]["metadata"]["annotations"] == {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/reading"}
    text = yaml.safe_dump_all(docs("cloud identity"))
    assert "AWS_ACCESS_KEY_ID" not in text and "AWS_SECRET_ACCESS_KEY" not in text


def test_external_secrets_write_the_secret_that_pods_read() -> None:
    (found,) = of_kind(docs("external secret"), "ExternalSecret")
    assert found["spec"]["secretStoreRef"] == {"name": "vault", "kind": "ClusterSecretStore"}
    keys = {entry["secretKey"]: entry["remoteRef"] for entry in found["spec"]["data"]}
    assert keys["AWS_ACCESS_KEY_ID"] == {"key": "training/s3", "property": "AWS_ACCESS_KEY_ID"} and len(keys) == 2


def test_seaweedfs_asks_for_no_telemetry_and_keeps_its_data_when_told() -> None:
    (store,) = of_kind(docs("SeaweedFS that keeps its data"), "StatefulSet")
    assert "-master.telemetry=false" in store["spec"]["template"]["spec"]["containers"][0]["args"]
    (claim,) = store["spec"]["volumeClaimTemplates"]
    assert amount(claim["spec"]["resources"]["requests"]["storage"]) == 10 * 2**30
    (trial,) = of_kind(docs("trial"), "StatefulSet")
    assert "volumeClaimTemplates" not in trial["spec"]


def test_large_numbers_stay_whole() -> None:
    """helm reads numbers as floats: 1e7 would be written 1e+07, which is no integer in TOML or YAML."""
    found = render(on_base(FIXED, {"setup": {"serve": {"max_request_bytes": 33554432, "max_image_pixels": 100000000}}}))
    text = next(doc["data"]["setup.toml"] for doc in of_kind(found, "ConfigMap") if "setup.toml" in doc["data"])
    assert "max_request_bytes = 33554432" in text and "max_image_pixels = 100000000" in text
    assert "33554432" in of_kind(found, "RayService")[0]["spec"]["serveConfigV2"]
