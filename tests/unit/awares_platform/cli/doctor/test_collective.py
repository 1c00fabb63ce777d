"""Tests the all-reduce over two processes, and the resources that the doctor asks Ray for."""

import subprocess
import sys

import pytest

from awares_platform.cli.doctor.collective import Exchange, judged
from awares_platform.cli.doctor.placement import bundles
from awares_platform.config.grpo import GrpoConfig
from awares_platform.runtime.ports import free_port

RANK = """
import sys
from awares_platform.cli.doctor.collective import exchange, join
address, rank, ranks = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
join(address, rank, ranks, "gloo")
one = exchange("gloo", "cpu")
print(one.right, one.size, one.seconds > 0)
"""


def test_two_processes_sum_a_tensor() -> None:
    address = f"127.0.0.1:{free_port()}"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, address, str(rank), "2"],
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    assert [process.communicate(timeout=120)[0] for process in started] == [
        "True 16777216 True\n"
    ] * 2


def test_the_slowest_rank_sets_the_rate_and_a_wrong_sum_fails() -> None:
    fast, slow = Exchange(True, 10**9, 0.5), Exchange(True, 10**9, 1.0)
    [found] = judged([fast, slow, fast, fast], "nccl")
    assert found.status == "pass"
    assert found.metrics["gb_per_s"] == pytest.approx(1.5)
    [found] = judged([fast, Exchange(True, 10**9, 2.0)], "nccl")
    assert found.status == "warn" and "0.50 GB/s" in found.found and "NCCL_DEBUG" in found.remedy
    assert judged([slow, Exchange(True, 10**9, 2.0)], "gloo")[0].status == "pass"
    assert judged([slow], "nccl")[0].status == "pass"
    [found] = judged([fast, Exchange(False, 10**9, 0.5)], "nccl")
    assert found.status == "fail" and "[1]" in found.found and found.remedy


def test_learner_engine_and_reward_workers_get_bundles() -> None:
    grpo = GrpoConfig(
        learner_workers=2,
        learner_gpus=1.0,
        learner_cpus=8.0,
        learner_selector={"awares/group": "learner"},
        rollout_actors=3,
        rollout_cpus=0.0,
        reward_workers=1,
        reward_cpus=2.0,
    )
    learner, second, rollout, reward = bundles(grpo)
    assert learner == second
    assert str(learner) == "8 CPU, 1 GPU on nodes with awares/group=learner"
    assert rollout.resources == {"CPU": 0.001} and rollout.labels == {}
    assert str(reward) == "2 CPU"
