"""Tests that a killed curate job resumes, and that it replaces an engine or actor that hangs.

An actor is a Ray Data worker with its own engine. Ray Data, vLLM and SeaweedFS are real.
"""

import asyncio
import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from awares.labels import Case, MatchJudge, label
from awares.sample import Label
from awares_platform.config import PlatformConfig
from awares_platform.curate.answered_rows import encode_answers
from awares_platform.curate.job import run
from awares_platform.curate.shards import plan
from awares_platform.data.dataset import ensure_mini, read_manifest, read_samples, read_split
from awares_platform.method.answers import Answers
from awares_platform.method.family import model_family
from awares_platform.runtime import session as sessions
from awares_platform.store import ObjectStore
from awares_platform.store.errors import LaunchError
from awares_platform.training.recipe import label_recipe
from awares_platform.training.source import base_digest
from tests.integration.damaged_image import damage_image
from tests.processes import descendants, family, gone, kill

pytestmark = [pytest.mark.integration, pytest.mark.slow]
SHARDS, ROWS, HANG_S, WAIT_S = 6, 48, 15.0, 150.0
ACTOR, ENGINE = "ray::MapWorker", "VLLM::EngineCore"


@pytest.fixture
def config(seaweed: ObjectStore, tmp_path: Path) -> PlatformConfig:
    settings = {
        "run": {
            "name": "curate-test",
            "directory": str(tmp_path / "runs"),
            "hang_timeout_s": HANG_S,
        },
        "store": {
            "url": "s3://awares/curate-test",
            "endpoint": seaweed.config.endpoint,
            "retry_budget_s": 10,
        },
        "data": {
            "train_samples": SHARDS * ROWS,
            "test_samples": 1,
            "shard_rows": ROWS,
            "image_cache": str(tmp_path / "images"),
        },
        "engine": {"kv_cache_gib": 0.25},
        "curate": {"max_tokens": 8, "both_wrong": "LR", "in_flight": 1},
    }
    return PlatformConfig.model_validate(settings)


def curated_etags(store: ObjectStore) -> dict[str, str]:
    found = store.list("datasets/awares-mini-curated-")
    return {info.key: info.etag for info in found if "/train/part-" in info.key}


def kill_in_the_middle(
    config: PlatformConfig, store: ObjectStore, directory: Path
) -> dict[str, str]:
    """Run `awares curate`, and kill the job and its Ray processes after the first shard.

    Return a dict from the object key of each finished shard to the shard's etag.
    """
    setup = directory / "setup.json"
    setup.write_text(config.model_dump_json())
    code = "from awares_platform.cli.main import main; main()"
    with (directory / "curate.log").open("w") as log:
        job = subprocess.Popen(
            [sys.executable, "-c", code, "curate", "--config", str(setup)],
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            while not (left := curated_etags(store)):
                said = (directory / "curate.log").read_text()
                assert job.poll() is None, f"curate ended before it could be killed:\n{said}"
                time.sleep(0.02)
        finally:
            with contextlib.suppress(psutil.NoSuchProcess):
                kill(family(psutil.Process(job.pid)))
            job.wait()
    return left


def named(name: str) -> list[psutil.Process]:
    return descendants(lambda command: command.startswith(name))


def stop_both(store: ObjectStore) -> None:
    """Stop an actor while its engine starts, and stop the next engine after a further shard.

    The job must kill both processes, because SIGSTOP only stops them.
    """
    wait_for(lambda: named(ENGINE), "an engine")
    stop(ACTOR)
    known = curated_etags(store)
    wait_for(lambda: curated_etags(store) != known, "a further shard")
    stop(ENGINE)


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not appear"
        time.sleep(0.02)


def stop(name: str) -> None:
    [victim] = named(name)
    victim.send_signal(signal.SIGSTOP)
    assert not gone([victim], 1.25 * HANG_S + 60), f"{name} still runs"


def test_a_killed_curation_resumes_and_completes(
    config: PlatformConfig, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    store = ObjectStore.from_config(config.store)
    ensure_mini(config.data, store)
    source = read_samples(store, "awares-mini", "train")
    damaged = source[-1]
    damage_image(store, config.data.name, "train", damaged.image)
    left = kill_in_the_middle(config, store, tmp_path)
    with sessions.session(config) as session:
        with ThreadPoolExecutor(1) as pool:
            stopped = pool.submit(stop_both, store)
            result = run(session)
        stopped.result()
        again = run(session)
    shown = capfd.readouterr()
    assert "the process of an answerer has died; another one answers its shard" in shown.err
    assert "the answerer has lost its engine: the engine gave no answer" in shown.err
    assert "(raylet)" not in shown.out + shown.err
    assert 1 <= result.shards_resumed < SHARDS and result.shards == SHARDS
    assert {key: etag for key, etag in curated_etags(store).items() if key in left} == left
    assert again.shards_resumed == SHARDS
    assert (result.samples, result.left_out, result.lr + result.hr) == (
        SHARDS * ROWS - 1,
        1,
        SHARDS * ROWS - 1,
    )
    name = again.dataset.split("/")[1]
    split = read_split(store, name, "train")
    assert [sample.sample_id for sample in split.samples] == [
        sample.sample_id for sample in source[:-1]
    ]
    manifest = read_manifest(store, name, "train")
    read = config.data.model_copy(update={"labels": name})
    assert manifest["shards"] == [shard.key for shard in plan(read, source, {})]
    assert manifest["recipe"]["settings"]["curate.max_tokens"] == config.curate.max_tokens
    for sample, columns in zip(split.samples, split.columns, strict=True):
        answers = (columns["low_answer"], columns["full_answer"])
        judgement = asyncio.run(MatchJudge()(Case(sample.question, sample.answer, *answers)))
        sure = columns["confidence"] >= config.curate.min_confidence
        assert (
            sample.label is label(judgement, sure=sure)
            and columns["verdict"] == judgement.verdict.name
        )
        assert bool(sample.crops) == (sample.label is Label.HR)
    assert (Path(config.run.directory) / "curate-test" / "curate" / "metrics.jsonl").exists()


def keep_answers(config: PlatformConfig, store: ObjectStore) -> None:
    """Write answers to all questions, so that the job needs no engine."""
    policy = base_digest(config.store, config.policy.base, model_family(config.policy))
    recipe = label_recipe(config.method, config.engine, config.curate, policy)
    samples = read_samples(store, config.data.name, "train")
    for shard in plan(config.data.model_copy(update={"labels": "any"}), samples, recipe):
        answers = [Answers(one, one.answer, one.answer, 1.0, "") for one in shard.samples]
        store.put(shard.answers, encode_answers(answers))


def test_a_judge_that_kills_its_process_ends_the_job(
    config: PlatformConfig, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    marks, store = tmp_path / "marks", ObjectStore.from_config(config.store)
    judge = {
        "judge": "tests.integration.killing_judge:KillingJudge",
        "judge_settings": {"marks": str(marks), "deaths": 12},
        "engine_restarts": 1,
    }
    few = {"train_samples": 4, "name": "awares-mini-few"}
    sections = {"curate": config.curate.model_copy(update=judge)}
    sections |= {"data": config.data.model_copy(update=few)}
    config = config.model_copy(update=sections)
    ensure_mini(config.data, store)
    with sessions.session(config) as session:
        keep_answers(session, store)
        with pytest.raises(LaunchError, match=r"labels .*part-00000.* died 2 times within an hour"):
            run(session)
    assert marks.stat().st_size == 2
    shown = capfd.readouterr().err
    assert "the process that labels" in shown and "(raylet)" not in shown
