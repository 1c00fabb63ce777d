"""Tests the sft job with real Ray Train, DeepSpeed, SeaweedFS and a tiny random Qwen2.5-VL."""

import json
import os
import random
import re
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from awares.errors import DataError
from awares.families.qwen2_5_vl import QWEN2_5_VL as FAMILY
from awares.mini.policy import build_model, save_policy
from awares.mini.tokenizer import train_tokenizer
from awares_platform.config import PlatformConfig
from awares_platform.config.data import DataConfig
from awares_platform.config.policy import PolicyConfig
from awares_platform.config.run import RunConfig
from awares_platform.config.sft import SftConfig
from awares_platform.data.dataset import read_manifest, write_samples
from awares_platform.data.images import image_key
from awares_platform.data.manifest import samples_digest
from awares_platform.runtime import metrics
from awares_platform.runtime.session import session as open_session
from awares_platform.sft import job as sft
from awares_platform.store import ObjectStore
from awares_platform.training.export import export_policy, policy_key, read_meta
from awares_platform.training.failure import Diverged
from awares_platform.training.identity import content_digest
from awares_platform.training.policy import load_policy
from awares_platform.training.recipe import sft_recipe
from awares_platform.training.shards import StoredSlices
from awares_platform.training.source import resolve
from tests.integration.our_lines import OUR_LINE, foreign
from tests.integration.standalone import disk, kill_store, last_words, start, wait_for
from tests.integration.tiny_sft import (
    SAMPLES,
    curated,
    finished_steps,
    named,
    recorded,
    weight_digests,
    with_own_store,
)
from tests.processes import descendants, family, gone

pytestmark = [pytest.mark.slow, pytest.mark.integration]

HELD_OUT = 4


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of an untrained policy."""
    directory, tokenizer = tmp_path_factory.mktemp("base"), train_tokenizer()
    save_policy(build_model(tokenizer, seed=0), tokenizer, directory)
    return directory


@pytest.fixture(scope="module")
def config(
    seaweed: ObjectStore, base: Path, tmp_path_factory: pytest.TempPathFactory
) -> PlatformConfig:
    """Write curated samples with 0, 1 or 2 crops. Return the configuration of an sft job."""
    store = ObjectStore.from_config(seaweed.config.model_copy(update={"url": "s3://awares/sft"}))
    write_samples(store, "tiny-curated", "train", list(curated(store)))
    return PlatformConfig(
        run=RunConfig(name="reference", directory=tmp_path_factory.mktemp("runs"), seed=3),
        store=store.config,
        policy=PolicyConfig(base=str(base)),
        data=DataConfig(name="tiny", image_cache=str(tmp_path_factory.mktemp("images"))),
        sft=SftConfig(
            epochs=4,
            batch_size=16,
            micro_batch=8,
            learning_rate=3e-3,
            validate_every=4,
            checkpoint_every=3,
            max_failures=1,
        ),
    )


@pytest.fixture(scope="module")
def session(config: PlatformConfig) -> Iterator[PlatformConfig]:
    with open_session(config) as ready:
        yield ready


@pytest.fixture
def polls_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make Ray Train poll its workers often, in processes that start after this call.

    Ray Train records a checkpoint only when it polls, which is every 2 s by default.
    """
    monkeypatch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.1")


@pytest.fixture(scope="module")
def reference(session: PlatformConfig) -> sft.SftResult:
    """Return the result of a job that runs without a fault, with one worker and ZeRO-2."""
    return sft.run(session)


def test_the_loss_falls_and_every_step_is_recorded(
    session: PlatformConfig, reference: sft.SftResult
) -> None:
    rows = metrics.read(session.run.directory / "reference" / "sft" / "metrics.jsonl")
    assert reference.steps == (SAMPLES - HELD_OUT) * 4 // 16 == 10
    assert [row.step for row in rows] == list(range(1, 11))
    losses = [row.values["loss/sft"] for row in rows]
    assert losses[-1] < 0.6 * losses[0]
    names = {"loss/tool_turn", "accuracy/tokens", "policy/learning_rate"}
    assert names | {"time/tokens_per_s", "time/step", "time/images"} <= rows[0].values.keys()
    assert rows[-1].values["accuracy/tokens"] > rows[0].values["accuracy/tokens"]
    measured = {row.step: row.values["validation/loss"] for row in rows if row.step in (4, 8, 10)}
    assert [row.step for row in rows if "validation/tool_turns" in row.values] == [*measured]
    store = ObjectStore.from_config(session.store)
    best = (read_meta(store, "reference", "sft") or {})["best"]
    assert best["held_out"]["validation/loss"] == measured[best["step"]] == min(measured.values())
    assert best["held_out"]["validation/questions"] == HELD_OUT
    assert [*store.list("runs/reference/snapshots/")] == []


def test_the_exported_policy_has_the_trained_weights(
    session: PlatformConfig, reference: sft.SftResult, tmp_path: Path
) -> None:
    store = ObjectStore.from_config(session.store)
    exported = load_policy(
        resolve(store, session.run.name, "sft", session.policy.base, FAMILY), session.policy, 0
    )
    # The held-out loss is lowest at the last step, so the job exports the policy of step 10.
    assert (read_meta(store, "reference", "sft") or {})["best"]["step"] == 10
    for info in store.list("runs/reference/checkpoints/"):
        if "step-00000010/" in info.key and "/state-" in info.key:
            store.download_file(info.key, tmp_path / Path(info.key).name)
    stored = StoredSlices(tmp_path, "step 10")
    trained = load_policy(Path(session.policy.base), session.policy, 0)
    for name, parameter in trained.named_parameters():
        # The checkpoint does not contain the frozen vision weights.
        if not name.startswith("model.visual."):
            values = stored.values("weight", name, 0, parameter.numel())
            parameter.data.copy_(values.view(parameter.shape))
    ids_BT = torch.arange(20, 44).reshape(2, 12)
    with torch.no_grad():
        assert torch.equal(exported(input_ids=ids_BT).logits, trained(input_ids=ids_BT).logits)
    tokenizer = "tokenizer.json"
    assert (
        resolve(store, session.run.name, "sft", session.policy.base, FAMILY) / tokenizer
    ).read_bytes() == Path(session.policy.base, tokenizer).read_bytes()


def test_a_finished_job_returns_at_once(session: PlatformConfig, reference: sft.SftResult) -> None:
    again = sft.run(_thrifty(session))
    assert (again.steps, again.resumed_from, again.metrics) == (10, 10, {})
    assert again.wall_s < reference.wall_s / 4


def test_a_finished_job_trains_again_when_its_base_has_changed(
    session: PlatformConfig, base: Path, tmp_path: Path
) -> None:
    """The test flips one bit of one weight. The path, file names and file sizes do not change."""
    start = Path(shutil.copytree(base, tmp_path / "base"))
    changed = named(session, "changed").model_copy(
        update={"policy": session.policy.model_copy(update={"base": str(start)})}
    )
    store = ObjectStore.from_config(changed.store)
    data = read_manifest(store, changed.data.curated, "train")
    meta = {"recipe": sft_recipe(changed, content_digest(start), samples_digest(data)), "step": 10}
    weights = start / "model.safetensors"
    export_policy(load_file(weights), start, store, "changed", "sft", FAMILY, changed.method, meta)
    assert sft.run(changed).resumed_from == 10
    content = bytearray(weights.read_bytes())
    content[8 + int.from_bytes(content[:8], "little")] ^= 1
    weights.write_bytes(content)
    again = sft.run(changed)
    assert (again.resumed_from, again.steps) == (0, 10) and again.metrics
    exported = read_meta(store, "changed", "sft")
    assert exported is not None and exported["trained_from"] == content_digest(start)


def test_a_killed_worker_resumes_and_ends_with_the_same_weights(
    session: PlatformConfig, reference: sft.SftResult
) -> None:
    killed = named(session, "killed-worker")
    rows = killed.run.directory / "killed-worker" / "sft" / "metrics.jsonl"
    killer = _when(
        lambda: finished_steps(rows) >= 5, lambda: _train_worker().send_signal(signal.SIGKILL)
    )
    result = sft.run(killed)
    killer.join()
    assert result.steps == 10
    lines = rows.read_text().splitlines()
    # The resumed run repeats the steps after the newest checkpoint, so metrics.jsonl has extra
    # lines. Equal weights show that the repeated steps use the same samples.
    assert len(lines) > 10
    assert weight_digests(killed) == weight_digests(session)


@pytest.mark.usefixtures("polls_often")
def test_a_killed_driver_resumes_and_ends_with_the_same_weights(
    session: PlatformConfig, reference: sft.SftResult
) -> None:
    """Each step writes a checkpoint, so Ray Train records one long before the training ends."""
    often = session.sft.model_copy(update={"checkpoint_every": 1})
    killed = named(session, "killed-driver").model_copy(update={"sft": often})
    rows = killed.run.directory / "killed-driver" / "sft" / "metrics.jsonl"
    store, driver = ObjectStore.from_config(killed.store), start("sft", killed)
    wait_for(lambda: recorded(store, "killed-driver"), driver)
    driver.kill()
    driver.wait()
    assert finished_steps(rows) < 10
    result = sft.run(killed)
    assert 0 < result.resumed_from < 10 and result.steps == 10
    assert weight_digests(killed) == weight_digests(session)


def test_gradients_that_are_not_finite_stop_the_run(session: PlatformConfig) -> None:
    """The first step makes the weights so large that the loss of every later step is not finite."""
    settings = session.sft.model_copy(update={"learning_rate": 1e30, "warmup_ratio": 0.0})
    diverging = named(session, "diverging").model_copy(update={"sft": settings})
    cause = r"3 optimizer steps in a row, the last at step 3, .* lower sft\.learning_rate"
    with pytest.raises(Diverged, match=cause):
        sft.run(diverging)
    assert read_meta(ObjectStore.from_config(session.store), "diverging", "sft") is None


def test_damaged_images_and_rows_are_left_out_and_counted(
    session: PlatformConfig, tmp_path: Path
) -> None:
    """Each micro-batch has one sample, so a damaged image leaves an empty micro-batch."""
    store = ObjectStore.from_config(session.store.model_copy(update={"url": "s3://awares/spoilt"}))
    samples = list(curated(store))[:8]
    write_samples(
        store,
        "spoilt-curated",
        "train",
        [*samples, replace(samples[0], sample_id="unlabelled", label=None)],
    )
    for sample in samples[:2]:
        store.put(image_key(sample.image), b"rubbish")
    spoilt = named(session, "spoilt").model_copy(
        update={
            "store": store.config,
            "data": DataConfig(name="spoilt", image_cache=str(session.run.directory / "images")),
            "sft": session.sft.model_copy(update={"epochs": 1, "batch_size": 4, "micro_batch": 1}),
        }
    )
    result = sft.run(spoilt)
    rows = metrics.read(session.run.directory / "spoilt" / "sft" / "metrics.jsonl")
    # Each step has one of the two samples whose images are damaged.
    assert result.steps == 2 and [row.values["data/unreadable"] for row in rows] == [1, 1]
    assert resolve(store, spoilt.run.name, "sft", spoilt.policy.base, FAMILY).is_dir()
    for sample in samples:
        store.put(image_key(sample.image), b"rubbish")
    with pytest.raises(DataError, match="none of the 4 images of a batch is readable"):
        sft.run(
            named(spoilt, "hopeless").model_copy(
                update={"data": DataConfig(name="spoilt", image_cache=str(tmp_path))}
            )
        )


@pytest.mark.usefixtures("polls_often")
def test_a_store_that_dies_is_one_error_and_what_it_held_goes_on(
    session: PlatformConfig, reference: sft.SftResult, tmp_path: Path
) -> None:
    """The test kills the job's SeaweedFS. The next job starts SeaweedFS on the same files."""
    settings = session.sft.model_copy(update={"max_failures": 0, "checkpoint_every": 1})
    job = with_own_store(session.model_copy(update={"sft": settings}), tmp_path)
    rows = job.run.directory / "reference" / "sft" / "metrics.jsonl"
    command = start("sft", job)
    wait_for(lambda: finished_steps(rows) >= 2, command)
    with disk(job) as shared:
        wait_for(lambda: recorded(shared, job.run.name), command)
    kill_store(command)
    status, shown, error = last_words(command)
    assert status == 2 and re.match(r"awares sft: .*(store\.endpoint|check the store)", error), (
        shown
    )
    status, shown, _ = last_words(start("sft", job))
    assert status == 0, shown
    steps = [json.loads(line)["step"] for line in rows.read_text().splitlines()]
    begun = next(
        place for place, (one, following) in enumerate(pairwise(steps), start=1) if following <= one
    )
    assert steps == [*range(1, begun + 1), *range(steps[begun], 11)]
    # A first step of 2 or more shows that the job resumes from a checkpoint.
    assert steps[begun] >= 2
    undisturbed = weight_digests(session)
    with disk(job) as reopened:
        assert weight_digests(job.model_copy(update={"store": reopened.config})) == undisturbed


def test_ctrl_c_ends_the_job_with_one_line(session: PlatformConfig, tmp_path: Path) -> None:
    """Like a terminal, the test sends SIGINT to the whole process group of the job at once."""
    job = with_own_store(session, tmp_path)
    command = start("sft", job)
    rows = job.run.directory / job.run.name / "sft" / "metrics.jsonl"
    wait_for(lambda: finished_steps(rows) >= 2, command)
    processes = family(psutil.Process(command.pid))
    os.killpg(command.pid, signal.SIGINT)
    status, shown, error = last_words(command)
    assert status == 130, shown
    said = "If you run it again, it goes on from its last checkpoint."
    last = f"awares sft: interrupted; everything it started has stopped. {said}"
    assert (error, foreign(shown, OUR_LINE)) == (last, [last]), shown
    assert not gone(processes, within_s=20)


def test_two_zero3_workers_train_on_the_same_batches_and_one_worker_resumes(
    session: PlatformConfig, reference: sft.SftResult
) -> None:
    settings = session.sft.model_copy(update={"workers": 2, "zero_stage": 3, "micro_batch": 4})
    sharded = named(session, "sharded").model_copy(update={"sft": settings})
    result = sft.run(sharded)
    one, two = (
        metrics.read(session.run.directory / name / "sft" / "metrics.jsonl")
        for name in ("reference", "sharded")
    )
    for left, right in zip(one, two, strict=True):
        assert left.values["loss/sft"] == pytest.approx(right.values["loss/sft"], rel=2e-2)
    assert one[0].values["loss/sft"] == pytest.approx(two[0].values["loss/sft"], rel=1e-5)
    assert result.steps == 10
    store, trained = ObjectStore.from_config(sharded.store), weight_digests(sharded)
    store.delete(f"{policy_key('sharded', 'sft')}/manifest.json")
    alone = sharded.model_copy(update={"sft": session.sft})
    assert sft.run(alone).steps == 10
    assert weight_digests(alone) == trained


def _thrifty(config: PlatformConfig) -> PlatformConfig:
    """Return the configuration with settings that save memory and change no result."""
    policy = config.policy.model_copy(update={"gradient_checkpointing": True, "attn": "eager"})
    section = config.sft.model_copy(update={"micro_tokens": 200})
    return config.model_copy(update={"policy": policy, "sft": section})


def _train_worker() -> psutil.Process:
    return random.choice(descendants(lambda command: "RayTrainWorker" in command))


def _when(condition: Callable[[], bool], action: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=lambda: (wait_for(condition), action()))
    thread.start()
    return thread
