"""Tests the chart's values that configure clusters, jobs and queues.

No preset sets most of these values, so no golden file covers them.
"""

import re
from typing import Any

import pytest

from tests.unit.helm.cases import CASES, GPU, JOBS, Case, docs, on_base
from tests.unit.helm.pods import containers, expand
from tests.unit.helm.references import cluster_specs
from tests.unit.helm.render import Doc, name_of, of_kind, render


def cluster(changes: dict[str, Any]) -> Doc:
    """Return the spec of the RayCluster that the chart renders for BASE with these changes."""
    return of_kind(render(on_base(changes)), "RayCluster")[0]["spec"]


def group(spec: Doc, name: str) -> Doc:
    return next(one for one in spec["workerGroupSpecs"] if one["groupName"] == name)


def job(changes: dict[str, Any], name: str = "grpo") -> Doc:
    found = of_kind(
        render(on_base({"jobs": {name: {"enabled": True} | changes}})), "RayJob", "RayCronJob"
    )
    return found[0]["spec"]


def test_the_head_runs_no_tasks() -> None:
    for case in CASES:
        assert [
            spec["headGroupSpec"]["resources"]["CPU"]
            for doc in case.docs()
            for spec in cluster_specs(doc)
        ].count("0") == sum(len(cluster_specs(doc)) for doc in case.docs())


@pytest.mark.parametrize("case", CASES, ids=str)
def test_pods_without_gpus_neither_see_nor_count_any(case: Case) -> None:
    """Check that a pod without a GPU limit hides its node's GPUs from its programs and from Ray.

    If NVIDIA's runtime is the default, other pods see all GPUs of the node.
    """
    for pod in expand(case.docs()):
        for container in containers(pod):
            limits = container["resources"]["limits"]
            hidden = {"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"} in container["env"]
            assert hidden is not any(name.endswith("/gpu") for name in limits), name_of(pod)
    for spec in (spec for doc in case.docs() for spec in cluster_specs(doc)):
        for one in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
            limits = one["template"]["spec"]["containers"][0]["resources"]["limits"]
            counted = (one.get("resources") or {}).get("GPU")
            assert counted == (None if "nvidia.com/gpu" in limits else "0")


def test_the_autoscaler_is_version_2_with_timeouts_and_priorities() -> None:
    spec = cluster(
        {
            "cluster": {
                "autoscaler": {"idleTimeoutSeconds": 77},
                "groups": {"rollout": {"idleTimeoutSeconds": 33, "priority": 9}},
            }
        }
    )
    assert spec["enableInTreeAutoscaling"] is True
    assert (
        spec["autoscalerOptions"]["version"],
        spec["autoscalerOptions"]["idleTimeoutSeconds"],
    ) == ("v2", 77)
    assert (group(spec, "rollout")["idleTimeoutSeconds"], group(spec, "rollout")["priority"]) == (
        33,
        9,
    )
    assert (
        "idleTimeoutSeconds" not in group(spec, "learner")
        and group(spec, "learner")["priority"] == 10
    )


def test_an_idle_timeout_of_zero_is_a_value() -> None:
    assert (
        group(cluster({"cluster": {"groups": {"rollout": {"idleTimeoutSeconds": 0}}}}), "rollout")[
            "idleTimeoutSeconds"
        ]
        == 0
    )


def test_a_group_has_its_labels_resources_and_places() -> None:
    own = {
        "gpus": 2,
        "labels": {"zone": "a"},
        "numCpus": 3,
        "customResources": {"disk": "1"},
        "shm": "3Gi",
        "objectStoreMemory": 123456789,
    }
    one = group(cluster({"cluster": {"groups": {"rollout": own}}}), "rollout")
    assert one["labels"]["zone"] == "a" and one["resources"] == {"CPU": "3", "disk": "1"}
    assert one["rayStartParams"]["object-store-memory"] == "123456789"
    pod = one["template"]["spec"]
    assert (
        pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"]
        == pod["containers"][0]["resources"]["requests"]["nvidia.com/gpu"]
        == "2"
    )
    assert {"medium": "Memory", "sizeLimit": "3Gi"} in [
        volume.get("emptyDir") for volume in pod["volumes"]
    ]
    assert pod["nodeSelector"] == GPU["nodeSelector"]


def test_spot_is_a_switch_of_the_rollout_group_alone() -> None:
    spot = {
        "enabled": True,
        "nodeSelector": {"spot": "true"},
        "tolerations": [{"key": "spot", "operator": "Exists"}],
    }
    off, on = cluster({}), cluster({"cluster": {"groups": {"rollout": {"spot": spot}}}})
    pod = group(on, "rollout")["template"]["spec"]
    assert (
        pod["nodeSelector"]["spot"] == "true"
        and GPU["nodeSelector"].items() <= pod["nodeSelector"].items()
    )
    assert {"key": "spot", "operator": "Exists"} in pod["tolerations"]
    assert "spot" not in group(off, "rollout")["template"]["spec"]["nodeSelector"]
    assert group(on, "learner") == group(off, "learner")


@pytest.mark.parametrize("name", ["rollout", "learner"])
def test_karpenter_may_evict_a_worker_whose_spot_node_is_taken_back(name: str) -> None:
    """The eviction is the worker's only notice of the loss of its node."""
    for spot in (False, True):
        docs = render(on_base({"cluster": {"groups": {name: {"spot": {"enabled": spot}}}}}))
        spec = of_kind(docs, "RayCluster")[0]["spec"]
        annotations = group(spec, name)["template"]["metadata"]["annotations"]
        assert ("karpenter.sh/do-not-disrupt" in annotations) is not spot
        guarded = [
            doc["spec"]["selector"]["matchLabels"].get("ray.io/group")
            for doc in of_kind(docs, "PodDisruptionBudget")
        ]
        assert (name in guarded) is (name == "learner" and not spot)


def test_a_topology_spread_counts_the_groups_own_pods() -> None:
    key = "topology.kubernetes.io/zone"
    pod = group(cluster({"cluster": {"groups": {"rollout": {"topologySpread": key}}}}), "rollout")[
        "template"
    ]["spec"]
    (spread,) = pod["topologySpreadConstraints"]
    assert (
        spread["topologyKey"] == key
        and spread["labelSelector"]["matchLabels"]["ray.io/group"] == "rollout"
    )


def test_a_group_can_be_disabled_and_another_added() -> None:
    size = {"cpu": "1", "memory": "4Gi"}
    judge = {"maxReplicas": 2, "resources": {"requests": size, "limits": size}}
    spec = cluster({"cluster": {"groups": {"cpu": {"enabled": False}, "judge": judge}}})
    assert sorted(one["groupName"] for one in spec["workerGroupSpecs"]) == [
        "judge",
        "learner",
        "rollout",
    ]


@pytest.mark.parametrize("mode", ["token", "disabled"])
def test_token_authentication(mode: str) -> None:
    changes = {"auth": {"mode": mode, "existingSecret": "ray" if mode == "token" else None}}
    for doc in render(on_base(changes, {"jobs": {"grpo": {"enabled": True}}})):
        for spec in cluster_specs(doc):
            assert spec["authOptions"] == (
                {"mode": "token", "secretName": "ray"} if mode == "token" else {"mode": "disabled"}
            )


def test_fault_tolerance_names_redis_and_its_password() -> None:
    for doc in docs("fault tolerance"):
        for spec in cluster_specs(doc):
            options = spec["gcsFaultToleranceOptions"]
            assert options["redisAddress"] == "redis.example.org:6379"
            assert options["redisPassword"]["valueFrom"]["secretKeyRef"] == {
                "name": "redis",
                "key": "redis-password",
            }
            assert int(doc["metadata"]["annotations"]["ray.io/gcs-ft-deletion-timeout"]) == 300


def test_a_job_ends_by_ttl_unless_it_has_rules() -> None:
    assert (
        job({})["shutdownAfterJobFinishes"],
        job({})["ttlSecondsAfterFinished"],
        "deletionStrategy" in job({}),
    ) == (True, 600, False)
    assert job({"ttlSecondsAfterFinished": 0})["ttlSecondsAfterFinished"] == 0
    rules = [{"policy": "DeleteSelf", "condition": {"jobStatus": "FAILED", "ttlSeconds": 60}}]
    ruled = job({"deletionRules": rules})
    assert ruled["deletionStrategy"]["deletionRules"] == rules
    assert not {"shutdownAfterJobFinishes", "ttlSecondsAfterFinished"} & {
        key for key, value in ruled.items() if value
    }


def test_a_job_has_retries_deadlines_and_suspension() -> None:
    spec = job(
        {
            "backoffLimit": 5,
            "activeDeadlineSeconds": 9000000,
            "preRunningDeadlineSeconds": 60,
            "suspend": True,
            "submitterBackoffLimit": 7,
        }
    )
    assert (
        spec["backoffLimit"],
        spec["activeDeadlineSeconds"],
        spec["preRunningDeadlineSeconds"],
    ) == (5, 9000000, 60)
    assert spec["suspend"] is True and spec["submitterConfig"]["backoffLimit"] == 7


def test_jobs_of_after_run_last() -> None:
    entrypoint = job({"before": ["sft"], "after": ["evaluate"]})["entrypoint"]
    assert re.findall(r"jobs/(\w+)", entrypoint) == ["sft", "grpo", "evaluate"]


def test_a_job_waits_for_another_job_of_the_release() -> None:
    """A queue starts jobs in any order, so a job waits for the results of earlier jobs."""
    found = {
        doc["metadata"]["labels"]["app.kubernetes.io/component"]: doc["spec"]["entrypoint"]
        for doc in of_kind(docs("kueue"), "RayJob")
    }
    assert {name for name, command in found.items() if "run.wait_s=86400" in command} == {
        "job-sft",
        "job-grpo",
        "job-evaluate",
    }
    assert "wait_s" not in job({"before": ["curate", "sft"]})["entrypoint"]


def test_jobs_of_before_run_first_with_the_same_arguments() -> None:
    entrypoint = job({"before": ["curate", "sft"], "args": ["run.name=second"]})["entrypoint"]
    steps = [
        f"python jobs/{name}.py --config /etc/awares/setup.toml run.name=second"
        for name in ("curate", "sft", "grpo")
    ]
    assert entrypoint == f'sh -c "{" && ".join(steps)}"'


def test_the_doctor_fails_without_a_retry_and_may_run_before_a_job() -> None:
    assert job({}, "doctor")["backoffLimit"] == 0
    assert job({"before": ["doctor"]})["entrypoint"].startswith('sh -c "python jobs/doctor.py ')


@pytest.mark.parametrize("major", [3, 4])
def test_helm_test_submits_the_doctor_after_the_other_tests(major: int) -> None:
    values = on_base({"tests": {"doctor": {"enabled": True, "deadlineSeconds": 700}}})
    found = of_kind(render(values, major=major), "Pod")
    pods = {doc["metadata"]["name"].rpartition("-test-")[2]: doc for doc in found}
    doctor = pods.pop("doctor")
    notes = doctor["metadata"]["annotations"]
    assert (notes["helm.sh/hook"], notes["helm.sh/hook-weight"]) == ("test", "1")
    assert not [pod for pod in pods.values() if "hook-weight" in str(pod["metadata"])]
    spec, other = doctor["spec"], pods["ray"]["spec"]
    assert spec["activeDeadlineSeconds"] == 700
    [container], [theirs] = spec["containers"], other["containers"]
    assert container["command"][:4] == ["ray", "job", "submit", "--address"]
    assert container["command"][5:] == [
        "--",
        "python",
        "jobs/doctor.py",
        "--config",
        "/etc/awares/setup.toml",
        "--wait",
        "400",
    ]
    # The doctor's pod has the same rights as the pod that tests Ray. Both pods have only one
    # secret, Ray's token.
    for key in ("env", "securityContext", "resources", "volumeMounts"):
        assert container[key] == theirs[key]
    for key in ("securityContext", "serviceAccountName", "automountServiceAccountToken"):
        assert spec[key] == other[key]
    assert "doctor" not in str(of_kind(render(on_base()), "Pod"))


def test_a_jobs_cluster_has_the_groups_of_the_job() -> None:
    groups = job({"groups": ["cpu", "rollout"]}, "evaluate")["rayClusterSpec"]["workerGroupSpecs"]
    assert sorted(one["groupName"] for one in groups) == ["cpu", "rollout"]


def test_a_schedule_makes_a_cron_job_of_the_same_job() -> None:
    spec = job({"schedule": "15 2 * * 1", "timeZone": "Europe/Berlin"}, "evaluate")
    assert (spec["schedule"], spec["timeZone"]) == ("15 2 * * 1", "Europe/Berlin")
    assert spec["jobTemplate"] == job({}, "evaluate")


def test_a_suffix_makes_a_new_job() -> None:
    names = [
        of_kind(render(on_base({"jobs": {"grpo": {"enabled": True, "suffix": suffix}}})), "RayJob")[
            0
        ]["metadata"]["name"]
        for suffix in ("", "2")
    ]
    assert names == ["awares-awares-train-grpo", "awares-awares-train-grpo-2"]


QUEUE_LABELS = {
    "kueue": {"kueue.x-k8s.io/queue-name": "research", "kueue.x-k8s.io/priority-class": "batch"},
    "volcano": {
        "volcano.sh/queue-name": "research",
        "ray.io/priority-class-name": "batch",
        "ray.io/gang-scheduling-enabled": "true",
    },
    "yunikorn": {"yunikorn.apache.org/queue": "research", "ray.io/gang-scheduling-enabled": "true"},
}


@pytest.mark.parametrize("kind", QUEUE_LABELS)
def test_a_queue_admits_clusters_and_jobs_but_not_the_endpoint(kind: str) -> None:
    for doc in of_kind(docs(kind), "RayCluster", "RayJob"):
        assert QUEUE_LABELS[kind].items() <= doc["metadata"]["labels"].items()
        assert [spec["enableInTreeAutoscaling"] for spec in cluster_specs(doc)] == [False] * len(
            cluster_specs(doc)
        )
    (service,) = of_kind(docs(kind), "RayService")
    assert not QUEUE_LABELS[kind].items() <= service["metadata"]["labels"].items()


def test_yunikorn_tells_applications_apart() -> None:
    ids = [
        doc["metadata"]["labels"]["yunikorn.apache.org/app-id"]
        for doc in of_kind(docs("yunikorn"), "RayCluster", "RayJob")
    ]
    assert len(ids) == len(set(ids)) == 1 + len(JOBS)


def test_a_queue_can_also_admit_the_endpoint() -> None:
    (service,) = of_kind(docs("kueue for the endpoint, too"), "RayService")
    assert QUEUE_LABELS["kueue"].items() <= service["metadata"]["labels"].items()


def test_kueue_places_workers_near_each_other() -> None:
    (found,) = of_kind(docs("kueue"), "RayCluster")
    for one in found["spec"]["workerGroupSpecs"]:
        assert (
            one["template"]["metadata"]["annotations"]["kueue.x-k8s.io/podset-required-topology"]
            == "example.org/rack"
        )


def test_a_queued_job_says_nothing_of_suspension() -> None:
    """Check that no queued object sets `suspend`, because helm would overwrite Kueue's value."""
    assert ["suspend" in doc["spec"] for doc in of_kind(docs("kueue"), "RayJob", "RayCluster")] == [
        False
    ] * (1 + len(JOBS))
