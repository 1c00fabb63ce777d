"""Tests that the chart refuses wrong values with a message that names the value and the remedy."""

import bisect
from typing import Any

import pytest

from tests.unit.helm.cases import FIXED, on_base
from tests.unit.helm.render import refusal, render

RULE = {"policy": "DeleteSelf", "condition": {"jobStatus": "FAILED", "ttlSeconds": 60}}
OTHER = {"policy": "DeleteWorkers", "condition": {"jobStatus": "FAILED"}}
QUEUE = {"kind": "kueue", "name": "research"}
INCREMENTAL = {
    "upgrade": "incremental",
    "gatewayClassName": "istio",
    "autoscaler": {"enabled": True},
}

REFUSED: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "no bucket": (
        {"store": {"bucket": ""}},
        ("store.bucket is empty", "name the bucket", "--set store.bucket="),
    ),
    "GPUs without a node selector": (
        {"cluster": {"groups": {"large": {"gpus": 4}}}},
        (
            "cluster.groups.large.gpus=4 without cluster.groups.large.nodeSelector",
            "name the nodes by a label",
        ),
    ),
    "GPUs of the endpoint without a node selector": (
        {"endpoint": {"groups": {"large": {"gpus": 2}}}},
        (
            "endpoint.groups.large.gpus=2 without endpoint.groups.large.nodeSelector",
            "name the nodes by a label",
        ),
    ),
    "the doctor as a test without a cluster": (
        {"tests": {"doctor": {"enabled": True}}, "cluster": {"enabled": False}},
        ("tests.doctor.enabled=true needs the RayCluster", "run jobs.doctor on a cluster"),
    ),
    "the doctor as a test without enough GPUs": (
        {
            "tests": {"doctor": {"enabled": True}},
            "setup": {"grpo": {"learner_workers": 64, "learner_gpus": 1, "rollout_gpus": 1}},
        },
        ("tests.doctor needs 65 GPUs at once for setup.grpo", "raise a group's maxReplicas"),
    ),
    "deletion rules and TTL": (
        {
            "jobs": {
                "grpo": {"enabled": True, "deletionRules": [RULE], "ttlSecondsAfterFinished": 60}
            }
        },
        ("jobs.grpo.deletionRules and jobs.grpo.ttlSecondsAfterFinished=60", "remove one of them"),
    ),
    "deletion rules under Kueue": (
        FIXED | {"queue": QUEUE, "jobs": {"grpo": {"enabled": True, "deletionRules": [RULE]}}},
        (
            "jobs.grpo.deletionRules cannot be combined with queue.kind=kueue",
            "use jobs.grpo.ttlSecondsAfterFinished instead",
        ),
    ),
    "deletion rules of a suspended job": (
        {"jobs": {"grpo": {"enabled": True, "suspend": True, "deletionRules": [RULE]}}},
        (
            "jobs.grpo.deletionRules cannot be combined with suspend",
            "use jobs.grpo.ttlSecondsAfterFinished instead",
        ),
    ),
    "deletion of workers with the autoscaler": (
        {"jobs": {"grpo": {"enabled": True, "deletionRules": [OTHER]}}},
        (
            "jobs.grpo.deletionRules with DeleteWorkers cannot be combined with "
            "cluster.autoscaler.enabled",
            "use DeleteCluster, or set",
        ),
    ),
    "the same deletion rule twice": (
        {"jobs": {"grpo": {"enabled": True, "deletionRules": [RULE, RULE]}}},
        ("jobs.grpo.deletionRules contain DeleteSelf on FAILED twice", "remove one of them"),
    ),
    "a shared cluster that does not exist": (
        {"cluster": {"enabled": False}, "jobs": {"grpo": {"enabled": True, "cluster": "shared"}}},
        (
            "jobs.grpo.cluster=shared needs the RayCluster",
            "set cluster.enabled=true, or jobs.grpo.cluster=own",
        ),
    ),
    "suspension of a job on the shared cluster": (
        {"jobs": {"grpo": {"enabled": True, "cluster": "shared", "suspend": True}}},
        ("jobs.grpo.cluster=shared allows neither suspend", "set jobs.grpo.cluster=own"),
    ),
    "an unknown group of a job": (
        {"jobs": {"grpo": {"enabled": True, "groups": ["leraner"]}}},
        (
            "jobs.grpo.groups names leraner",
            "not in cluster.groups: use one of cpu, learner, rollout",
        ),
    ),
    "queue with autoscaling": (
        {"queue": QUEUE},
        (
            "queue.kind=kueue admits whole clusters, and cluster.autoscaler.enabled changes",
            "set cluster.autoscaler.enabled=false",
        ),
    ),
    "queue without a name": (
        FIXED | {"queue": {"kind": "volcano"}},
        ("queue.kind=volcano needs queue.name", "set it to the queue"),
    ),
    "replicas of the endpoint": (
        {"endpoint": {"autoscaling": {"minReplicas": 3, "maxReplicas": 2}}},
        (
            "endpoint.autoscaling.minReplicas=3 exceeds maxReplicas=2",
            "raise endpoint.autoscaling.maxReplicas, or lower minReplicas",
        ),
    ),
    "replicas that the endpoint's GPUs cannot carry": (
        {"endpoint": {"autoscaling": {"maxReplicas": 3}}, "setup": {"serve": {"replica_gpus": 1}}},
        (
            "endpoint.autoscaling.maxReplicas=3 needs 3 GPUs at once for setup.serve, "
            "but its groups offer 1",
            "raise a group's",
        ),
    ),
    "replicas of a group": (
        {"cluster": {"groups": {"cpu": {"minReplicas": 5, "maxReplicas": 2}}}},
        (
            "cluster.groups.cpu.minReplicas=5 exceeds maxReplicas=2",
            "raise cluster.groups.cpu.maxReplicas, or lower minReplicas",
        ),
    ),
    "no token of Ray": (
        {"auth": {"existingSecret": None}},
        ("auth.existingSecret is not set", "kubectl create secret generic"),
    ),
    "no token of the endpoint": (
        {"endpoint": {"token": {"existingSecret": None}}},
        (
            "endpoint.token.existingSecret is not set",
            "kubectl create secret generic",
            "endpoint.keys.existingSecret for a key for each",
            "endpoint.token.open=true",
        ),
    ),
    "no credentials of the store": (
        {"store": {"existingSecret": None}},
        (
            "store.existingSecret is not set",
            "name a Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or annotate",
        ),
    ),
    "another KubeRay": (
        {"kuberay": {"version": "1.6.1"}},
        ("kuberay.version=1.6.1 is not supported", "upgrade the operator and its CRDs to 1.7.0"),
    ),
    "an old Ray": (
        {"rayVersion": "2.40.0"},
        ("rayVersion=2.40.0 is not supported", "2.56.0 or newer"),
    ),
    "incremental upgrade without a gateway": (
        {"endpoint": INCREMENTAL | {"gatewayClassName": ""}},
        (
            "endpoint.upgrade=incremental needs",
            "endpoint.gatewayClassName",
            "or endpoint.upgrade=none",
        ),
    ),
    "steps larger than the surge": (
        {"endpoint": INCREMENTAL | {"incremental": {"stepSizePercent": 30, "maxSurgePercent": 20}}},
        (
            "endpoint.incremental.stepSizePercent=30 exceeds maxSurgePercent=20",
            "lower stepSizePercent",
        ),
    ),
    "a setup that names another store": (
        {"setup": {"store": {"url": "s3://other/place"}}},
        (
            'setup.store.url="s3://other/place" would be replaced by store.bucket',
            "remove the key",
        ),
    ),
    "fault tolerance without an address": (
        {"cluster": {"gcsFaultTolerance": {"enabled": True, "redisAddress": "redis"}}},
        (
            'cluster.gcsFaultTolerance.redisAddress="redis" is not an address',
            "set it to the host:port",
        ),
    ),
    "an ingress without a host": (
        {"endpoint": {"ingress": {"enabled": True}}},
        ("endpoint.ingress.enabled needs endpoint.ingress.host", "set it to the host name"),
    ),
    "two places for the models": (
        {"modelCache": {"claim": "models", "hostPath": "/mnt/models"}},
        ("modelCache.claim and modelCache.hostPath name two places", "set one of them"),
    ),
    "a route without a gateway": (
        {"endpoint": {"httpRoute": {"enabled": True}}},
        ("endpoint.httpRoute.enabled needs endpoint.httpRoute.parentRefs", "name the Gateway"),
    ),
}


@pytest.mark.parametrize("major", [4, 3])
@pytest.mark.parametrize("name", REFUSED)
def test_is_refused_with_the_value_and_the_remedy(name: str, major: int) -> None:
    changes, parts = REFUSED[name]
    sentences = [
        line for line in refusal(on_base(changes), major=major).splitlines() if parts[0] in line
    ]
    assert len(sentences) == 1, "the message must occur once"
    assert [part for part in parts if part not in sentences[0]] == []


SCHEMA: dict[str, tuple[dict[str, Any], str, str]] = {
    "an unknown key": ({"clutser": {}}, "", "clutser"),
    "an unknown key of a section": ({"store": {"buckett": "x"}}, "store", "buckett"),
    "an unknown key of a group": (
        {"cluster": {"groups": {"cpu": {"gpu": 1}}}},
        "cluster.groups.cpu",
        "gpu",
    ),
    "an unknown key of a job": ({"jobs": {"grpo": {"arg": []}}}, "jobs.grpo", "arg"),
    "an unknown job": ({"jobs": {"train": {}}}, "jobs", "train"),
    "an unknown key of the setup": (
        {"setup": {"grpo": {"lerning_rate": 1}}},
        "setup.grpo",
        "lerning_rate",
    ),
    "a wrong type in the setup": (
        {"setup": {"grpo": {"steps": "many"}}},
        "setup.grpo.steps",
        "integer",
    ),
    "a value out of bounds in the setup": (
        {"setup": {"grpo": {"group_size": 1}}},
        "setup.grpo.group_size",
        "2",
    ),
    "a word that is no choice": ({"queue": {"kind": "slurm"}}, "queue.kind", "yunikorn"),
    "a word that a shell would read": (
        {"jobs": {"grpo": {"args": ["$(id)"]}}},
        "jobs.grpo.args.0",
        "pattern",
    ),
    "a negative number of GPUs": (
        {"cluster": {"groups": {"cpu": {"gpus": -1}}}},
        "cluster.groups.cpu.gpus",
        "0",
    ),
    "an endpoint that may be left without replicas": (
        {"endpoint": {"autoscaling": {"minReplicas": 0}}},
        "endpoint.autoscaling.minReplicas",
        "1",
    ),
    "an endpoint that never has a replica": (
        {"endpoint": {"autoscaling": {"maxReplicas": 0}}},
        "endpoint.autoscaling.maxReplicas",
        "1",
    ),
    "a drain that is too short for the actors": (
        {"cluster": {"groups": {"cpu": {"drainSeconds": 15}}}},
        "cluster.groups.cpu.drainSeconds",
        "20",
    ),
    "a quantity that is none": (
        {"cluster": {"groups": {"cpu": {"resources": {"requests": {"memory": "16 GB"}}}}}},
        "cluster.groups.cpu.resources.requests.memory",
        "pattern",
    ),
}


@pytest.mark.parametrize("major", [4, 3])
@pytest.mark.parametrize("name", SCHEMA)
def test_the_schema_is_closed(name: str, major: int) -> None:
    """Check that the schema refuses the value with a message that starts with the value's path.

    Helm 4 writes a path as `'/store/bucket'`, and helm 3 writes `store.bucket`.
    """
    changes, path, word = SCHEMA[name]
    place = (
        f"- {path or '(root)'}: "
        if major == 3
        else f"- at '{''.join(f'/{part}' for part in path.split('.') if part)}': "
    )
    lines = [
        line
        for line in refusal(on_base(changes), major=major).splitlines()
        if line.startswith(place)
    ]
    assert len(lines) == 1 and word in lines[0]


@pytest.mark.parametrize("major", [4, 3])
def test_a_release_name_that_is_too_long_is_refused(major: int) -> None:
    said = refusal(
        on_base(), major=major, release="a-release-with-a-name-that-goes-on-and-on-and-on"
    )
    assert "characters, and the limit is 4" in said
    assert "choose a shorter release name" in said and "set fullnameOverride" in said


def test_the_longest_accepted_release_name_fits_kuberays_limits() -> None:
    """Check that the operator accepts all object names of a release with the longest allowed name.

    The release includes a RayCronJob, because the limit for RayCronJob names is the smallest.
    """
    from tests.unit.helm.operator_rules import DEFAULT_GATES, faults

    values = on_base(
        {"jobs": {"grpo": {"enabled": True}, "evaluate": {"enabled": True, "schedule": "@daily"}}}
    )
    taken = bisect.bisect(
        range(1, 54), False, key=lambda length: not _is_taken(values, "a" * length)
    )
    assert 8 <= taken < 53
    docs = render(values, release="a" * taken)
    assert [fault for doc in docs for fault in faults(doc, DEFAULT_GATES | {"RayCronJob"})] == []


def _is_taken(values: dict[str, Any], release: str) -> bool:
    try:
        render(values, release=release)
    except AssertionError:
        return False
    return True


def test_all_refusals_are_printed_at_once() -> None:
    said = refusal(
        on_base(
            {
                "store": {"bucket": ""},
                "kuberay": {"version": "1.5.0"},
                "auth": {"existingSecret": None},
            }
        )
    )
    assert (
        "store.bucket is empty" in said
        and "kuberay.version=1.5.0" in said
        and "auth.existingSecret is not set" in said
    )
