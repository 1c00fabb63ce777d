"""Tests that the chart refuses values with which a release would install, but never work.

For example, a pod would wait for ever, or KubeRay's operator would report an error too late.
"""

from typing import Any

import pytest

from tests.unit.helm.cases import FIXED, on_base
from tests.unit.helm.operator_job import deletion_rules_are_in_order
from tests.unit.helm.render import refusal, render

ROLLOUT = {"awares/group": "rollout"}
LEARNER = {"awares/group": "learner"}


def _job(**values: Any) -> dict[str, Any]:
    return {"jobs": {"grpo": {"enabled": True} | values}}


def _grpo(job: dict[str, Any] | None = None, **settings: Any) -> dict[str, Any]:
    return _job(**(job or {})) | {"setup": {"grpo": settings}}


def _rule(policy: str, seconds: int, status: str = "FAILED") -> dict[str, Any]:
    return {"policy": policy, "condition": {"jobStatus": status, "ttlSeconds": seconds}}


HANGS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "actors of two GPUs on workers of one": (
        _grpo(rollout_gpus=2, rollout_selector=ROLLOUT),
        (
            "jobs.grpo needs 2 GPUs and 1 CPUs on one worker for each of 1 actors",
            "setup.grpo.rollout_gpus",
            "rollout can hold 0 of them: raise the gpus",
        ),
    ),
    "replicas of two GPUs on workers of one": (
        {
            "setup": {"serve": {"replica_gpus": 2}},
            "endpoint": {"groups": {"replica": {"maxReplicas": 2}}},
        },
        ("endpoint.autoscaling.maxReplicas=1 needs 2 GPUs", "replica can hold 0", "raise the gpus"),
    ),
    "CPUs of one actor on smaller workers": (
        _grpo({"groups": ["cpu"]}, rollout_cpus=6),
        ("jobs.grpo needs 0 GPUs and 6 CPUs on one worker", "cpu can hold 0", "raise the gpus"),
    ),
    "actors that only other groups could hold": (
        _grpo(rollout_gpus=1, rollout_actors=5, rollout_selector=ROLLOUT),
        ("for each of 5 actors", "rollout can hold 4 of them", "lower setup.grpo.rollout_gpus"),
    ),
    "learners that only other groups could hold": (
        _grpo(
            rollout_gpus=1,
            rollout_selector=ROLLOUT,
            learner_gpus=1,
            learner_workers=5,
            learner_selector=LEARNER,
        ),
        ("for each of 5 actors", "learner can hold 4 of them", "lower setup.grpo.learner_gpus"),
    ),
    "a selector that no group has": (
        _grpo(rollout_selector={"awares/group": "rolout"}),
        (
            "jobs.grpo: none of its groups (cpu, learner, rollout) has the labels of",
            'setup.grpo.rollout_selector={"awares/group":"rolout"}',
            "add the labels to a group, or change the selector",
        ),
    ),
    "a selector that only a group of another job has": (
        _grpo({"groups": ["learner", "cpu"]}, rollout_selector=ROLLOUT),
        ("none of its groups (cpu, learner)", "add the labels to a group"),
    ),
    "an engine on fewer GPUs than it is split over": (
        _job() | {"setup": {"engine": {"tensor_parallel": 2}, "grpo": {"rollout_gpus": 1}}},
        (
            "jobs.grpo: setup.engine.tensor_parallel=2 needs as many GPUs",
            "raise setup.grpo.rollout_gpus to 2",
        ),
    ),
    "a replica on fewer GPUs than it is split over": (
        {"setup": {"engine": {"tensor_parallel": 2}, "serve": {"replica_gpus": 1}}},
        ("setup.engine.tensor_parallel=2 needs", "raise setup.serve.replica_gpus to 2"),
    ),
    "Volcano with a job on the shared cluster": (
        FIXED | {"queue": {"kind": "volcano", "name": "research"}} | _job(cluster="shared"),
        (
            "jobs.grpo.cluster=shared with queue.kind=volcano would wait for ever",
            "set jobs.grpo.cluster=own",
        ),
    ),
    "a schedule past a queue": (
        FIXED | {"queue": {"kind": "kueue", "name": "research"}} | _job(schedule="@daily"),
        (
            "jobs.grpo.schedule would bypass the queue of queue.kind=kueue",
            "remove the schedule, or set queue.kind=none",
        ),
    ),
    "a minute above 59": (
        _job(schedule="60 3 * * *"),
        ('jobs.grpo.schedule="60 3 * * *" has the minute "60"', "use *, or numbers from 0 to 59"),
    ),
    "a Sunday that is a 7": (
        _job(schedule="0 3 * * 7"),
        ('has the day of the week "7"', "numbers from 0 to 6"),
    ),
    "a range that ends before it begins": (
        _job(schedule="0 3 * dec-jan,9-2 *"),
        ('has the month "dec-jan,9-2"', "numbers from 1 to 12"),
    ),
    "a word in a schedule": (_job(schedule="0 noon * * *"), ('has the hour "noon"', "0 to 23")),
    "an unknown time zone": (
        _job(schedule="0 3 * * *", timeZone="Europe/Berln"),
        ('jobs.grpo.timeZone="Europe/Berln" is no time zone', "use a name such as Etc/UTC"),
    ),
    "a job deleted before its cluster": (
        _job(deletionRules=[_rule("DeleteSelf", 5), _rule("DeleteCluster", 50)]),
        (
            "jobs.grpo.deletionRules have DeleteSelf after 5 s, and DeleteCluster only after 50 s",
            "give DeleteSelf at least the ttlSeconds of DeleteCluster",
        ),
    ),
    "a cluster deleted before its workers": (
        FIXED | _job(deletionRules=[_rule("DeleteWorkers", 9), _rule("DeleteCluster", 0)]),
        ("have DeleteCluster after 0 s", "give DeleteCluster at least"),
    ),
    "deletion rules of a job on the shared cluster": (
        _job(cluster="shared", deletionRules=[_rule("DeleteSelf", 60)]),
        ("jobs.grpo.deletionRules have no effect with jobs.grpo.cluster=shared", "remove them"),
    ),
}


@pytest.mark.parametrize("name", HANGS)
def test_a_release_that_would_wait_for_ever_is_refused(name: str) -> None:
    changes, parts = HANGS[name]
    said = refusal(on_base(changes))
    sentences = [line for line in said.splitlines() if all(part in line for part in parts)]
    assert len(sentences) == 1, said


RUNS: dict[str, dict[str, Any]] = {
    "two actors on one worker": _grpo(
        rollout_gpus=2, rollout_actors=2, rollout_selector=LEARNER, learner_selector=ROLLOUT
    ),
    "an engine as wide as its actor": _job()
    | {"setup": {"engine": {"tensor_parallel": 2}, "grpo": {"rollout_gpus": 2}}},
    "engines that share a GPU": _grpo(
        {"groups": ["rollout"]}, rollout_gpus=0.25, rollout_actors=16, learner_cpus=1
    ),
    "conditions that only a node can answer": _grpo(
        rollout_selector={"awares/group": "!learner", "ray.io/accelerator-type": "L40S"}
    ),
    "a schedule with names, lists and steps": _job(
        schedule="*/5 3,4-6 ? JAN-mar mon-FRI", timeZone="America/Sao_Paulo"
    ),
    "a schedule in UTC": _job(schedule="@daily", timeZone="UTC"),
    "a cluster deleted before its job": _job(
        deletionRules=[
            _rule("DeleteCluster", 5),
            _rule("DeleteSelf", 5),
            _rule("DeleteCluster", 50, "SUCCEEDED"),
        ]
    ),
}


@pytest.mark.parametrize("major", [4, 3])
@pytest.mark.parametrize("name", RUNS)
def test_a_release_that_runs_is_accepted(name: str, major: int) -> None:
    assert render(on_base(RUNS[name]), major=major)


def test_the_operators_rules_refuse_the_same_order() -> None:
    rules = [_rule("DeleteSelf", 5), _rule("DeleteCluster", 50)]
    spec = {"deletionStrategy": {"deletionRules": rules}}
    assert [*deletion_rules_are_in_order(spec, ())] == [
        "DeleteSelf after 5 s comes before DeleteCluster"
    ]
