"""Tests the grpo job with damaged data, a killed store, changed settings, and killed processes."""

import json
import re
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from awares.episode import Episode, StopReason
from awares.mini.policy import build_model, save_policy
from awares.mini.tokenizer import train_tokenizer
from awares.sample import Label
from awares_platform.config import PlatformConfig
from awares_platform.data.dataset import ensure_mini, read_samples, write_samples
from awares_platform.grpo.group import Group, Outcome
from awares_platform.grpo.segment import decode, pair
from awares_platform.runtime import metrics
from awares_platform.weights import Subscriber
from tests.integration.damaged_image import damage_image
from tests.integration.standalone import disk, kill_store, last_words, start, wait_for
from tests.processes import descendants, family, gone, kill

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1800)]
STEPS = 8
FAULTS = [
    ("ray::RolloutActor", signal.SIGSTOP),
    ("ray::RayTrainWorker", signal.SIGSTOP),
    ("ray::TrainerActor", signal.SIGKILL),
    ("ray::ControllerActor", signal.SIGKILL),
]
"""Each pair is the start of a process's command line, and the signal for this process.

Ray Train's own controller runs in the TrainerActor. The list has no engine, because
test_engine_failures.py tests a stopped engine.
"""
HANG_S = 30


@pytest.fixture
def config(tmp_path: Path) -> PlatformConfig:
    """Return the configuration of a run with its own SeaweedFS, and write damaged data.

    The first image of the canary is damaged. One row has no label, and one row has no question.
    """
    settings = {
        "run": {"name": "faults", "directory": str(tmp_path / "runs")},
        "store": {"retry_budget_s": 5},
        "data": {
            "train_samples": 48,
            "test_samples": 1,
            "held_out": 0,
            "image_cache": str(tmp_path / "images"),
        },
        "engine": {"kv_cache_gib": 0.25},
        "grpo": {
            "start": "base",
            "steps": STEPS,
            "groups_per_step": 4,
            "group_size": 4,
            "max_tokens": 8,
            "checkpoint_every": 1,
            "micro_batch": 8,
            "learner_restarts": 0,
        },
    }
    config = PlatformConfig.model_validate(settings)
    with disk(config) as store:
        ensure_mini(config.data, store)
        samples = [
            replace(sample, label=Label.LR)
            for sample in read_samples(store, "awares-mini", "train")
        ]
        damage_image(store, "awares-mini", "train", samples[0].image)
        samples[5], samples[6] = replace(samples[5], label=None), replace(samples[6], question=" ")
        write_samples(store, "awares-mini-curated", "train", samples)
    return config


def test_each_is_one_clear_error_and_the_run_goes_on_afterwards(config: PlatformConfig) -> None:
    rows = config.run.directory / "faults" / "grpo" / "metrics.jsonl"
    job = start("grpo", config)
    wait_for(lambda: rows.exists() and len(rows.read_text().splitlines()) >= 5, job)
    kill_store(job)
    status, shown, error = last_words(job)
    assert status == 2 and re.match(r"awares grpo: .*(store\.endpoint|check the store)", error), (
        shown
    )
    assert "46 samples (2 unusable rows left out)" in shown

    status, shown, error = last_words(start("grpo", config, "policy.lora_rank=4"))
    assert status == 2 and re.match(
        r"awares grpo: checkpoint runs/faults/checkpoints/grpo/\S+ has another recipe: "
        r"policy\.lora_rank is 0 in the run and 4 now\. Restore .*delete ",
        error,
    ), shown

    stop = ("grpo.guards.window=1", "grpo.guards.entropy=stop", "grpo.guards.entropy_below=100")
    status, shown, error = last_words(start("grpo", config, *stop))
    assert status == 2 and re.match(
        r"awares grpo: stopped after step \d: the mean of policy/surprise over 1 steps is \S+, "
        r"below grpo\.guards\.entropy_below=100: ",
        error,
    ), shown

    before = len(rows.read_text().splitlines())
    status, shown, _ = last_words(start("grpo", config))
    assert status == 0, shown
    assert [row.step for row in metrics.read(rows)] == list(range(1, STEPS + 1))
    resumed = [json.loads(line)["step"] for line in rows.read_text().splitlines()[before:]]
    # A first step of 2 or more shows that the job resumes from a checkpoint.
    assert 2 <= resumed[0] <= before + 1


def test_a_step_with_gradients_that_are_not_finite_publishes_nothing(
    config: PlatformConfig,
) -> None:
    """After the first update, the policy differs from its reference, and the KL term overflows.

    The first update may not be in the first step, because a step whose groups all have equal
    rewards makes no update.
    """
    diverging = ("run.name=diverging", "grpo.kl_beta=1e38", "grpo.learner_restarts=3")
    status, shown, error = last_words(start("grpo", config, *diverging))
    refused = re.match(
        r"awares grpo: 3 optimizer steps in a row, the last at step (\d+), had gradients that are "
        r"not finite: lower grpo\.learning_rate",
        error,
    )
    assert status == 2 and refused, shown
    taken = int(refused[1]) - 2
    rows = metrics.read(config.run.directory / "diverging" / "grpo" / "metrics.jsonl")
    assert taken > 0
    assert [row.values["policy/skipped_steps"] for row in rows] == [0] * taken + [1, 1]
    with disk(config) as store:
        # Version 1 has the starting weights. Each of the `taken` steps has published one version.
        assert Subscriber(store, "diverging").head() == 1 + taken


def test_killed_and_stopped_processes_are_replaced(config: PlatformConfig) -> None:
    """Check that each signal ends the process that gets it, and that the training goes on.

    After each signal, two more training steps must end within 180 seconds.
    """
    rows = config.run.directory / "struck" / "grpo" / "metrics.jsonl"
    settings = ("grpo.steps=2000", "grpo.learner_restarts=9", f"run.hang_timeout_s={HANG_S}")
    # At the end, the test sends SIGTERM twice. The second signal cuts the clean stop short.
    job = start("grpo", config, "run.name=struck", *settings)
    processes = {psutil.Process(job.pid)}
    try:
        for name, fault in FAULTS:
            wait_for_lines(rows, 2, job)
            processes |= family(psutil.Process(job.pid))
            strike(name, fault, rows, job)
        job.terminate()
        assert job.stderr and any("stopping: actors and learner" in line for line in job.stderr)
        job.terminate()
        _, said = job.communicate(timeout=120)
        assert job.returncode == 143 and "Task was destroyed" not in said, said
    finally:
        kill(processes)
        job.wait()
    steps = [row.step for row in metrics.read(rows)]
    assert steps == list(range(1, len(steps) + 1))


def test_sigterm_keeps_unfinished_groups_for_the_next_job(
    config: PlatformConfig, tmp_path: Path
) -> None:
    """Send SIGTERM after the first step, when some episodes are unfinished.

    A random policy rarely ends an answer, and the engine runs only six requests at a time. The
    actor therefore cannot finish all groups.
    """
    rows, policy = config.run.directory / "drained" / "grpo" / "metrics.jsonl", tmp_path / "random"
    tokenizer = train_tokenizer()
    save_policy(build_model(tokenizer, seed=0), tokenizer, policy)
    settings = ("run.name=drained", f"policy.base={policy}", "engine.max_requests=6")
    settings += ("grpo.max_tokens=160", "grpo.steps=4")
    job = start("grpo", config, *settings)
    wait_for_lines(rows, 1, job)
    job.terminate()
    status, shown, _ = last_words(job)
    assert status == 143 and "not all groups" not in shown, shown
    kept = re.search(r"the journal keeps (\d+) unfinished groups for the next job", shown)
    cut = {pair(one): one for one in journalled(config) if one.outcome is Outcome.UNFINISHED}
    assert kept and len(cut) == int(kept[1]) > 0, shown
    steps = len(rows.read_text().splitlines())

    status, shown, _ = last_words(start("grpo", config, *settings))
    assert status == 0, shown
    resumed = [json.loads(line)["step"] for line in rows.read_text().splitlines()[steps:]]
    # No step is repeated, because the first job saved a checkpoint after its last step.
    assert resumed == list(range(steps + 1, 5))
    done = [one for one in journalled(config) if one.outcome is not Outcome.UNFINISHED]
    assert len({pair(one) for one in done}) == len(done)
    whole = {pair(one): one for one in done}
    continued = [
        (before, after)
        for found, group in cut.items()
        for before, after in zip(group.episodes, whole[found].episodes, strict=True)
    ]
    lengths = [
        len(tokens(before)) for before, _ in continued if before.stop is StopReason.UNFINISHED
    ]
    print("sampled before the cut:", lengths)
    assert any(0 < count < 160 for count in lengths)
    for before, after in continued:
        assert after.stop is not StopReason.UNFINISHED and len(tokens(after)) <= 160
        assert tokens(after)[: len(tokens(before))] == tokens(before)
        assert (before == after) == (before.stop is not StopReason.UNFINISHED)


def journalled(config: PlatformConfig) -> list[Group]:
    """Return all groups of the run "drained", in the order in which the jobs have written them."""
    with disk(config) as store:
        keys = sorted(info.key for info in store.list("runs/drained/episodes/"))
        return [one for key in keys for one in decode(store.get(key), key).groups]


def tokens(episode: Episode) -> list[tuple[int, float, int]]:
    """Return the id, the logprob and the version of each sampled token."""
    return [
        token
        for turn in episode.turns
        for token in zip(turn.sampled_ids, turn.logprobs, turn.versions, strict=True)
    ]


def strike(name: str, fault: signal.Signals, rows: Path, job: subprocess.Popen[str]) -> None:
    """Send the signal `fault` to the process whose command line starts with `name`.

    Then wait until this process is gone, and until two more training steps have ended.
    """
    [victim] = descendants(lambda command: command.startswith(name), job.pid)
    struck = time.monotonic()
    victim.send_signal(fault)
    assert not gone([victim], 1.25 * HANG_S + 60), f"{name} still runs"
    left = time.monotonic() - struck
    wait_for_lines(rows, 2, job, 180 - left)
    print(f"{name}: gone after {left:.0f} s, a step after {time.monotonic() - struck:.0f} s")


def wait_for_lines(
    rows: Path, more: int, job: subprocess.Popen[str], timeout_s: float = 600
) -> None:
    """Wait until the metrics file `rows` has `more` further lines. Each step writes one line."""

    def lines() -> int:
        return len(rows.read_text().splitlines()) if rows.exists() else 0

    before = lines()
    wait_for(lambda: lines() >= before + more, job, timeout_s)
