"""The trial preset's endpoint under helm 3, from `helm install` to `helm uninstall`.

It runs on real Ray and vLLM. test_trial.py has the rest.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from awares.mini.benchmark import generate_split
from tests.simulator.api.kinds import Kinds
from tests.simulator.controller import simulator
from tests.simulator.node.process import leftovers
from tests.simulator.tools import helm
from tests.simulator.tools.release import Release, ask, new_keys

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(900)]
ENDPOINT = ("cluster.enabled=false", "jobs.grpo.enabled=false", "tests.waitSeconds=10")


@pytest.fixture
def trial(kinds: Kinds, tmp_path: Path) -> Iterator[Release]:
    binary = helm.binary("helm3")
    with simulator(kinds) as (controller, server):
        yield Release(
            helm.Helm(binary, server.kubeconfig(tmp_path), tmp_path), controller, new_keys()
        )


def test_helm_3_installs_tests_upgrades_and_uninstalls(trial: Release) -> None:
    scene, sample = next(iter(generate_split("test", 1, seed=5)))

    def length() -> int:
        answer = ask(trial.url("endpoint"), scene, sample.question, trial.token)
        assert answer.status == 200, answer.body
        return answer.body["usage"]["completion_tokens"]

    trial.install(*ENDPOINT)
    trial.wait(
        "endpoint",
        lambda: trial.one("RayService").get("status", {}).get("serviceStatus") == "Running",
    )
    usual = length()
    trial.helm.do("test", "trial", "--timeout", "120s")
    trial.upgrade(*ENDPOINT, "setup.serve.max_tokens=1")
    trial.wait("answers of the new version", lambda: length() < usual)
    trial.helm.do("uninstall", "trial", "--wait")
    trial.wait("end of all processes", lambda: not leftovers(trial.controller.mark), 60)
    assert trial.left() == {}
