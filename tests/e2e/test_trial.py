"""Tests the trial preset in the simulator, from `helm install` to `helm uninstall`, under helm 4.

Helm, Ray, vLLM, DeepSpeed and SeaweedFS are real. All tests share one installation, and each test
starts where the previous one ended.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from boto3.session import Session
from botocore.client import Config as ClientConfig

from awares.mini.benchmark import generate_split
from tests.simulator.api.kinds import Kinds
from tests.simulator.controller import simulator
from tests.simulator.node.process import leftovers
from tests.simulator.tools import helm
from tests.simulator.tools.client import asking
from tests.simulator.tools.release import NAMESPACE, Release, ask, new_keys

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1500)]
FEW = (
    "setup.data.train_samples=64",
    "setup.data.test_samples=16",
    "tests.waitSeconds=10",
    "tests.doctor.enabled=true",
)
# This setting limits each turn to one token. The length of an answer therefore shows whether the
# endpoint uses this setting.
SHORT = "setup.serve.max_tokens=1"
SCENE, SAMPLE = next(iter(generate_split("test", 1, seed=5)))


@pytest.fixture(scope="module")
def trial(kinds: Kinds, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Release]:
    binary = helm.binary("helm")
    home = tmp_path_factory.mktemp("home")
    with simulator(kinds) as (controller, server):
        release = Release(helm.Helm(binary, server.kubeconfig(home), home), controller, new_keys())
        release.install(*FEW)
        yield release


@pytest.fixture(scope="module")
def failed_before(request: pytest.FixtureRequest) -> int:
    return request.session.testsfailed


@pytest.fixture(autouse=True)
def after_what_went_well(request: pytest.FixtureRequest, failed_before: int) -> None:
    """Skip a test if an earlier test of this file failed.

    Without this fixture, each later test would wait until its timeout.
    """
    if request.session.testsfailed > failed_before:
        pytest.skip("an earlier test of this story failed")


def store_client(trial: Release) -> Any:
    """Return a boto3 client of the store that the chart installed."""
    keys = trial.keys["awares-store"]
    return Session(
        keys["AWS_ACCESS_KEY_ID"], keys["AWS_SECRET_ACCESS_KEY"], region_name="us-east-1"
    ).client("s3", endpoint_url=trial.url("seaweedfs"), config=ClientConfig(proxies={}))


def test_head_and_workers_come_up(trial: Release) -> None:
    trial.wait(
        "ready clusters",
        lambda: (
            [body.get("status", {}).get("state") for body in trial.all("RayCluster")]
            == ["ready", "ready"]
        ),
    )
    roles = sorted(
        body["metadata"]["labels"]["ray.io/node-type"]
        for body in trial.all("Pod")
        if "ray.io/cluster" in body["metadata"]["labels"]
    )
    assert roles == ["head", "head", "worker", "worker"]


def test_the_grpo_job_trains_to_the_end(trial: Release) -> None:
    ended = ("Complete", "Failed")
    trial.wait(
        "end of the grpo job",
        lambda: trial.one("RayJob").get("status", {}).get("jobDeploymentStatus") in ended,
        1200,
    )
    status = trial.one("RayJob")["status"]
    assert (status["jobDeploymentStatus"], status["jobStatus"]) == ("Complete", "SUCCEEDED"), list(
        trial.controller.job_logs.values()
    )
    assert "jobs/grpo.py" in trial.one("RayJob")["spec"]["entrypoint"]
    prefix = "trial/runs/trial/policies/awares/"
    listed = store_client(trial).list_objects_v2(Bucket="awares", Prefix=prefix)
    assert any(item["Key"].endswith(".safetensors") for item in listed["Contents"])


def test_a_job_is_submitted_as_the_notes_say(trial: Release) -> None:
    """The command in the chart's notes submits a job.

    An earlier test has finished the run, so the submitted grpo job finds nothing to do.
    """
    notes = trial.helm.do("get", "notes", "trial")
    [command] = re.findall(r"^ *(ray job submit .*)$", notes, re.MULTILINE)
    [service] = re.findall(r"port-forward service/(\S+-head-svc) 8265:8265", notes)
    address = trial.controller.kubelet.services.address(NAMESPACE, service, 8265)
    words = trial.on_head(command.replace("127.0.0.1:8265", address)).split()

    def submit(token: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
        program = Path(sys.executable).with_name(words[0])
        return subprocess.run(
            [program, *words[1:]], env=environment, capture_output=True, text=True, timeout=300
        )

    done = submit(trial.keys["awares-ray"]["auth_token"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing to do" in done.stdout and "succeeded" in done.stdout
    assert submit("another").returncode != 0


def test_the_endpoint_answers_only_with_the_token(trial: Release) -> None:
    trial.wait(
        "endpoint",
        lambda: trial.one("RayService").get("status", {}).get("serviceStatus") == "Running",
    )
    answer = ask(trial.url("endpoint"), SCENE, SAMPLE.question, trial.token)
    assert answer.status == 200, answer.body
    assert (
        answer.body["usage"]["completion_tokens"] > 1
        and answer.body["awares"]["visual_tokens"] >= 4
    )
    assert [
        ask(trial.url("endpoint"), SCENE, SAMPLE.question, other).status
        for other in (None, "another")
    ] == [401, 401]


def test_helm_test_passes(trial: Release) -> None:
    """`helm test` runs the probes, and then the doctor on the RayCluster."""
    trial.helm.do("test", "trial", "--timeout", "600s")
    stored = store_client(trial).get_object(Bucket="awares", Key="trial/runs/trial/doctor.json")
    found = json.load(stored["Body"])
    assert found["status"] != "fail"
    passed = {one["check"] for one in found["findings"] if one["status"] == "pass"}
    assert {"update of whole weights", "update of an adapter"} <= passed, found


def served(trial: Release) -> str:
    """Return the name of the policy in the RayService's serveConfigV2."""
    return yaml.safe_load(trial.one("RayService")["spec"]["serveConfigV2"])["applications"][0][
        "args"
    ]["serve"]["policy"]


def test_upgrade_and_rollback_change_the_version_without_a_failed_request(trial: Release) -> None:
    pods = {
        body["metadata"]["uid"]
        for body in trial.all("Pod")
        if "ray.io/cluster" in body["metadata"]["labels"]
    }
    with asking(trial.url("endpoint"), SCENE, SAMPLE.question, trial.token) as asked:
        trial.wait("first answer", lambda: asked.newest_tokens() > 1)
        usual = asked.newest_tokens()
        trial.upgrade(*FEW, "setup.serve.policy=awares", SHORT)
        assert served(trial) == "awares"
        trial.wait("answers of the new version", lambda: 0 <= asked.newest_tokens() < usual)
        trial.helm.do("rollback", "trial", "1")
        assert served(trial) == "base"
        trial.wait("answers of the first version", lambda: asked.newest_tokens() == usual)
    assert asked.failures == []
    assert len(asked.answers) > 10
    assert pods == {
        body["metadata"]["uid"]
        for body in trial.all("Pod")
        if "ray.io/cluster" in body["metadata"]["labels"]
    }, "the upgrade or the rollback replaced pods of Ray"


def test_helm_test_fails_when_s3_is_down(trial: Release) -> None:
    objects, body = trial.controller.objects, trial.one("StatefulSet")
    objects.replace(
        objects.kinds.of("apps/v1", "StatefulSet"),
        NAMESPACE,
        body["metadata"]["name"],
        {**body, "spec": {**body["spec"], "replicas": 0}},
    )
    trial.wait(
        "end of SeaweedFS",
        lambda: not [pod for pod in trial.all("Pod") if "seaweedfs" in pod["metadata"]["name"]],
    )
    ended = trial.helm.run("test", "trial", "--timeout", "120s")
    assert ended.status != 0
    [failed] = [pod for pod in trial.all("Pod") if pod.get("status", {}).get("phase") == "Failed"]
    assert "store" in failed["metadata"]["name"]
    assert "probe store" in trial.controller.kubelet.logs(NAMESPACE, failed["metadata"]["name"])


def test_uninstall_leaves_nothing(trial: Release, tmp_path: Path) -> None:
    trial.helm.do("uninstall", "trial", "--wait")
    trial.wait("end of all processes", lambda: not leftovers(trial.controller.mark), 60)
    assert trial.left() == {}
    assert sorted(body["metadata"]["name"] for body in trial.all("Secret")) == sorted(trial.keys), (
        "only the Secrets that the user created may stay"
    )
    assert json.loads(trial.helm.do("list", "--output", "json")) == []
