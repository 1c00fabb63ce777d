"""Tests the grpo job with real Ray, vLLM, DeepSpeed and SeaweedFS.

The test kills the whole job, resumes the job, kills a rollout actor, and then takes the store away
for several seconds.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from awares.families.qwen2_5_vl import QWEN2_5_VL
from awares.mini import generate_split
from awares.sample import Label
from awares_platform.cli.ask import ask
from awares_platform.config import PlatformConfig
from awares_platform.config.serve import ServeConfig
from awares_platform.data.dataset import ensure_mini, read_samples, write_samples
from awares_platform.grpo.group import Outcome
from awares_platform.grpo.job import journal_of, run
from awares_platform.grpo.record_book import read_record
from awares_platform.grpo.validated import Validated
from awares_platform.runtime import metrics
from awares_platform.runtime.job_lease import JobRefused
from awares_platform.runtime.ports import free_port
from awares_platform.runtime.session import session as open_session
from awares_platform.serve.job import serving
from awares_platform.store import ObjectStore
from awares_platform.training.export import read_meta
from awares_platform.training.policy import load_policy
from awares_platform.training.source import resolve
from awares_platform.weights import Publisher, Subscriber
from awares_platform.weights.retention import pinned
from tests.integration.fault import Reset
from tests.integration.fault_proxy import proxy
from tests.integration.fault_rules import Faults
from tests.processes import descendants, gone, kill

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1800)]
STEPS, GROUPS, OUTAGE_S = 6, 4, 8.0
EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def faults(seaweed: ObjectStore) -> Iterator[Faults]:
    with proxy(seaweed) as running:
        yield running


@pytest.fixture
def config(faults: Faults, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PlatformConfig:
    """Return the configuration of a run with a custom reward, and write the run's samples.

    The run starts from the base policy. Every fourth sample has the label HR: its question needs
    high resolution.
    """
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.setenv("PYTHONPATH", str(EXAMPLES), prepend=os.pathsep)
    settings = {
        "run": {"name": "grpo-test", "directory": str(tmp_path / "runs")},
        "store": {
            "url": "s3://awares/grpo-test",
            "endpoint": faults.store.config.endpoint,
            "retry_budget_s": 3 * OUTAGE_S,
        },
        "data": {"train_samples": 64, "test_samples": 1, "image_cache": str(tmp_path / "images")},
        "engine": {"kv_cache_gib": 0.25},
        "method": {"reward": "anls_reward:AnlsReward", "reward_settings": {"call_price": 0.5}},
        "grpo": {
            "start": "base",
            "steps": STEPS,
            "groups_per_step": GROUPS,
            "group_size": 4,
            "max_tokens": 8,
            "staleness_bound": 1,
            "checkpoint_every": 1,
            "micro_batch": 8,
            "learning_rate": 1e-4,
            "validation": {"every": 2},
            # Every update makes the KL divergence exceed `kl_above`. Once there is a best version,
            # each step therefore restores it.
            "guards": {"window": 1, "kl": "restore-best", "kl_above": 1e-9, "max_restores": 99},
        },
    }
    config = PlatformConfig.model_validate(settings)
    store = ObjectStore.from_config(config.store)
    ensure_mini(config.data, store)
    samples = read_samples(store, "awares-mini", "train")
    labelled = [
        replace(sample, label=Label.LR if index % 4 else Label.HR)
        for index, sample in enumerate(samples)
    ]
    write_samples(store, "awares-mini-curated", "train", labelled)
    return config


def wait_for(condition: Callable[[], bool], what: str, timeout_s: float = 800) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"no {what} within {timeout_s} s"
        time.sleep(0.1)


def kill_job_after_first_checkpoint(
    config: PlatformConfig, store: ObjectStore, directory: Path
) -> None:
    """Run `awares grpo`, and send SIGKILL after Ray Train has recorded the first checkpoint.

    Before that, a second job of the run must be refused, without an effect on the first job.
    """
    setup = directory / "setup.json"
    setup.write_text(config.model_dump_json())
    output = directory / "grpo.log"

    def checkpointed() -> bool:
        assert job.poll() is None, f"grpo ended before it could be killed:\n{output.read_text()}"
        found = [
            info.key
            for info in store.list("runs/grpo-test/checkpoints/grpo/")
            if info.key.endswith("snapshot.json")
        ]
        return any(b"step-0000000" in store.get(key) for key in found)

    with output.open("w") as log:
        code = "from awares_platform.cli.main import main; main()"
        job = subprocess.Popen(
            [sys.executable, "-c", code, "grpo", "--config", str(setup)],
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        children: list[psutil.Process] = []
        try:
            wait_for(lambda: store.exists("runs/grpo-test/grpo/lease.json"), "lease")
            with pytest.raises(JobRefused, match=f"`awares grpo`, process {job.pid} on .*, since "):
                run(config)
            wait_for(checkpointed, "checkpoint")
            children = psutil.Process(job.pid).children(recursive=True)
        finally:
            os.killpg(job.pid, signal.SIGKILL)
            job.wait()
    # Ray's agents end by themselves. Before that, they try for a minute to report the dead raylet.
    alive = gone(children, within_s=90)
    assert not alive, f"processes outlive a killed job: {alive}"


def disturb(config: PlatformConfig, store: ObjectStore, faults: Faults, killed: list[int]) -> None:
    """Kill the rollout actor while it validates a version of the resumed learner.

    Append this version and the process id of each killed actor to `killed`. Then reset all requests
    to the store for OUTAGE_S seconds.
    """
    subscriber = Subscriber(store, config.run.name)
    before = subscriber.head() or 0

    def validating() -> bool:
        pending = read_record(store, config.run.name).pending
        found = [due.version for due in pending if due.version > before + 1]
        killed[:] = [one for one in found if one <= (subscriber.head() or 0)][:1]
        return bool(killed)

    wait_for(validating, "validation of the resumed learner's version")
    actors = descendants(lambda command: command.startswith("ray::RolloutActor"))
    kill(actors)
    killed += [actor.pid for actor in actors]
    faults.on(fault=Reset())
    time.sleep(OUTAGE_S)
    faults.clear()


def served_while_published(session: PlatformConfig, store: ObjectStore, image: Path) -> None:
    """Check that an endpoint serves the newest version, and then one published while it runs."""
    config = session.model_copy(
        update={"serve": ServeConfig(policy="base", follow=True, port=free_port())}
    )
    data, sample = next(iter(generate_split("test", 1, seed=5)))
    image.write_bytes(data)
    publisher, subscriber = Publisher(store, config.run.name), Subscriber(store, config.run.name)
    newest = subscriber.head()
    assert newest is not None
    with serving(config) as url:

        def version() -> int:
            return ask(image, sample.question, url).weight_version

        assert version() == newest
        held = subscriber.receive(newest)
        publisher.publish(newest + 1, held.state, held.manifest.extra)
        wait_for(lambda: version() == newest + 1, "answer by the next version", 60)


def check_validations(config: PlatformConfig, store: ObjectStore, killed: int) -> Validated:
    """Check the record of validated versions, and return the best one.

    `killed` is the version that the killed actor was validating.
    """
    record = read_record(store, config.run.name)
    assert record.pending == [] and killed in [one.version for one in record.entries]
    assert {one.step for one in record.entries} == {0, 2, 4, 6}
    assert all(len(one.values) == 6 for one in record.entries)
    best = record.found(record.best)
    assert best is not None and best.step > 0
    # The best version is the only one that is pinned (never deleted). It is also the only one whose
    # training state is in the store.
    assert pinned(store, config.run.name) == {best.version}
    snapshots = {info.key.split("/")[4] for info in store.list("runs/grpo-test/snapshots/")}
    assert snapshots == {f"v{best.version:08d}"}
    last = read_meta(store, config.run.name, "awares-last")
    assert (last is None) == (best.step == STEPS)
    return best


def test_killed_resumed_and_nothing_counted_twice(
    config: PlatformConfig, faults: Faults, tmp_path: Path
) -> None:
    store = ObjectStore.from_config(config.store)
    kill_job_after_first_checkpoint(config, store, tmp_path)
    killed: list[int] = []
    with open_session(config) as session:
        killer = threading.Thread(target=disturb, args=(session, store, faults, killed))
        killer.start()
        result = run(session)
        killer.join()
        again = run(session)
        served_while_published(session, store, tmp_path / "scene.png")
    assert len(killed) == 2
    assert (result.steps, again.metrics) == (STEPS, {})
    meta = read_meta(store, "grpo-test", "awares")
    best = check_validations(config, store, killed[0])
    assert meta is not None and meta["step"] == best.step
    assert meta.keys() == {"step", "steps", "held_out", "recipe", "digest", "trained_from"}
    assert meta["held_out"] == best.metrics()
    assert meta["recipe"] == json.loads(store.get("runs/grpo-test/grpo/recipe.json"))
    assert meta["recipe"]["method.reward"] == "anls_reward:AnlsReward"
    assert not store.exists("runs/grpo-test/grpo/lease.json")

    rows = metrics.read(Path(config.run.directory) / "grpo-test" / "grpo" / "metrics.jsonl")
    # The row of step 0 has only the validation metrics of the starting policy.
    assert [row.step for row in rows] == list(range(STEPS + 1))
    measured = [row.step for row in rows if "validation/reward" in row.values]
    assert measured == [0, 2, 4, 6] and "reward/mean" not in rows.pop(0).values
    # The actor restarts once. If this happens after the last row is written, the rows count 0.
    assert rows[-1].values["actors/restarts"] in (0, 1)
    restores = [row.values["guards/restores"] or 0 for row in rows]
    assert 0 == restores[0] < restores[-1] <= read_record(store, config.run.name).restores
    for key in ("learner/busy", "engine/busy"):
        shares = [row.values[key] or 0 for row in rows if key in row.values]
        assert shares and all(0 <= share <= 1 for share in shares) and max(shares) > 0, key
    for row in rows:
        assert (row.values["learner/mfu"] or 0) > 0
        assert 0 <= (row.values["learner/padding"] or 0) < 1
    for row in rows:
        spelling, price = row.values["reward/spelling"] or 0, row.values["reward/price"] or 0
        assert row.values["reward/mean"] == pytest.approx(spelling - price)
    assert all((row.values["staleness/max"] or 0) <= 1 for row in rows)
    assert all(
        0 <= (row.values.get("canary/dlogp") or 0) < config.engine.canary_bound for row in rows
    )
    # For tokens of staleness 0, the engine and the learner have the same weights, so their logprobs
    # are almost equal.
    fresh = [row.values["importance/gap"] or 0 for row in rows if row.values["staleness/max"] == 0]
    assert fresh and max(fresh) < 0.03

    (saved,) = [
        info.key
        for info in store.list("runs/grpo-test/checkpoints/grpo/")
        if info.key.endswith(f"step-{STEPS:08d}/awares.json")
    ]
    position = json.loads(store.get(saved))["state"]
    # Use `session`, not `config`: the keys of the journal depend on the engine's data type, which
    # is still "auto" in `config`.
    journal = journal_of(session, store)
    trainings = journal.trainings()
    trained = [pair for record in trainings.values() for pair in record.groups]
    assert list(trainings) == list(range(STEPS)) and len({*trained}) == STEPS * GROUPS
    held = [group.outcome for group in journal.read().groups]
    useless = [one for one in held if one not in (Outcome.READY, Outcome.UNFINISHED)]
    assert position["watermark"] + len(position["beyond"]) == STEPS * GROUPS + len(useless)

    before, after = (
        load_policy(
            resolve(store, config.run.name, name, config.policy.base, QWEN2_5_VL), config.policy, 0
        ).state_dict()
        for name in ("base", "awares")
    )
    assert before.keys() == after.keys()
    assert any(not before[name].allclose(after[name]) for name in before)
