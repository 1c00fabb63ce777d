"""Tests which stale policies a job waits for, and which ones it refuses at once.

A policy is stale if the settings or the base policy have changed since its training. `awares sft`
trains a stale policy again, so a job waits for it. `awares grpo` never replaces a policy.
"""

import re
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from awares.errors import MissingPolicy, PolicyError
from awares.families.qwen2_5_vl import QWEN2_5_VL as FAMILY
from awares.mini import POLICY
from awares_platform.config import PlatformConfig
from awares_platform.evaluate import job as evaluate
from awares_platform.grpo import job as grpo
from awares_platform.runtime.awaited import awaited
from awares_platform.serve.job import serving
from awares_platform.store import ObjectStore
from awares_platform.training.export import export_policy
from awares_platform.training.source import resolve
from awares_platform.weights.checkpoint import Checkpoint

pytestmark = pytest.mark.integration

STALE = {
    "base": r"'sft' was trained from \w{12}, but policy.base=.* now: run `awares sft` again, or",
    "method": r"policies/sft was trained with method\.low_ratio = 0\.5 \(here 0\.25\): "
    r"run `awares sft` again, or",
}
"""Messages of later jobs, keyed by what the user has changed since `awares sft`."""
CHECKPOINT = b'{"step": 10, "parameters": "p", "identity": {}, "state": {}}'


def export(config: PlatformConfig, store: ObjectStore, name: str, source: Path | str) -> None:
    weights = Checkpoint(Path(POLICY))
    export_policy(weights, Path(source), store, "r", name, FAMILY, config.method)


@pytest.fixture
def config(store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PlatformConfig:
    """Return the setup of a run with the policy "sft". Its jobs wait for at most a second."""
    monkeypatch.setenv("AWARES_CACHE", str(tmp_path / "cache"))
    base = shutil.copytree(POLICY, tmp_path / "base")
    settings = {
        "run": {"name": "r", "directory": tmp_path / "runs", "wait_s": 1.0},
        "store": store.config,
        "policy": {"base": str(base)},
        "evaluate": {"policies": ["sft"]},
        "serve": {"policy": "sft"},
    }
    config = PlatformConfig.model_validate(settings)
    export(config, store, "sft", base)
    return config


def change(config: PlatformConfig, what: str) -> PlatformConfig:
    """Change the files of the base policy, or return the setup with another `low_ratio`."""
    if what == "base":
        Path(config.policy.base, "config.json").open("a").write("\n")
        return config
    return config.model_copy(
        update={"method": config.method.model_copy(update={"low_ratio": 0.25})}
    )


def check(config: PlatformConfig, store: ObjectStore, *policies: Any) -> None:
    """Check the policies as `awares evaluate` does before it starts."""
    evaluate.check_policies(
        store, "r", config.policy, config.grpo, policies or config.evaluate.policies, config.method
    )


@pytest.mark.parametrize("what", STALE)
@pytest.mark.parametrize("job", [grpo, evaluate])
def test_a_job_waits_for_sft_to_replace_its_policy(
    config: PlatformConfig, what: str, job: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = change(config, what)
    with pytest.raises(MissingPolicy, match=STALE[what]) as error:
        job.run(changed)
    waits = rf"waits for at most [01] s \(run\.wait_s\): {re.escape(str(error.value))}"
    assert re.search(waits, capsys.readouterr().err)


@pytest.mark.parametrize("what", STALE)
def test_a_waiting_job_starts_when_sft_has_replaced_its_policy(
    config: PlatformConfig, store: ObjectStore, what: str
) -> None:
    changed, trained = change(config, what), []

    def sft(_: float) -> None:
        export(changed, store, "sft", changed.policy.base)
        trained.append(1)

    awaited("evaluate", 60, partial(check, changed, store), sleep=sft)
    assert trained == [1]


@pytest.mark.parametrize("what", STALE)
@pytest.mark.parametrize("policies", [("sft", "awares"), ("awares",)])
def test_no_job_waits_for_a_policy_that_grpo_would_have_to_replace(
    config: PlatformConfig, store: ObjectStore, what: str, policies: tuple[str, ...]
) -> None:
    export(config, store, "awares", resolve(store, "r", "sft", config.policy.base, FAMILY))
    changed = change(config, what)
    with pytest.raises(PolicyError) as error:
        check(changed, store, *policies)
    assert error.type is PolicyError, "waiting does not help"


@pytest.mark.parametrize("what", STALE)
@pytest.mark.parametrize("left", ["policy", "checkpoint"])
def test_grpo_does_not_wait_for_sft_if_it_would_then_refuse_its_own_results(
    config: PlatformConfig,
    store: ObjectStore,
    what: str,
    left: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if left == "policy":
        export(config, store, "awares", resolve(store, "r", "sft", config.policy.base, FAMILY))
    else:
        store.put("runs/r/checkpoints/grpo/step-00000010/awares.json", CHECKPOINT)
    with pytest.raises(PolicyError, match=STALE[what]) as error:
        grpo.run(change(config, what))
    assert error.type is PolicyError and "waits" not in capsys.readouterr().err
    remedy = "After a new training, delete runs/r/policies/awares/ and runs/r/checkpoints/grpo/"
    assert remedy in str(error.value)


def test_an_endpoint_does_not_wait_for_another_policy(config: PlatformConfig) -> None:
    message = r"policies/sft was trained with method\.low_ratio = 0\.5 \(here 0\.25\): set"
    with pytest.raises(PolicyError, match=message), serving(change(config, "method")):
        pass
