"""Tests which snapshots of the sft job stay in the store, for a job that resumes."""

import json
import uuid
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import pytest

from awares_platform.sft.best import BestStep
from awares_platform.store import ObjectStore
from awares_platform.training import checkpoint
from awares_platform.training.checkpoint import META, Saved
from awares_platform.training.filesystem import StoreHandler
from awares_platform.training.recipe import sft_job
from awares_platform.training.snapshot import Snapshots, complete, snapshot_key

pytestmark = pytest.mark.integration

STEPS = 20
JOB = sft_job({"run.seed": 0})


class OneFile(Snapshots):
    """Snapshots that hold one small file each, and need no engine."""

    def save(self, name: int, step: int, state: Mapping[str, Any]) -> None:
        key = snapshot_key(self._run, self._job, name)
        self._store.put(f"{key}/state-00000.json", b"{}")
        self._store.put(f"{key}/done/00000", b"1")


class SftJob:
    """A job that validates steps. After a kill, the next job resumes from the last checkpoint."""

    def __init__(self, store: ObjectStore) -> None:
        self._store, self._run = store, f"run-{uuid.uuid4().hex[:8]}"
        self.best, self._saved = self._begun(), None
        ray = checkpoint.run_config(store.config, self._run, JOB, lambda: False, 2, "worker")
        # Ray Train stores the checkpoints in this directory.
        self._folder = StoreHandler(store).key(f"{ray.storage_path}/{ray.name}")

    def _begun(self) -> BestStep:
        snapshots = OneFile(None, self._store, self._run, JOB, {})
        return BestStep(self._store, self._run, JOB, snapshots, rank=0)

    def validate(self, step: int, loss: float) -> None:
        self.best.offer(step, {"validation/loss": loss})

    def checkpoint(self, step: int) -> None:
        """Write a checkpoint, and delete all but the last two, as Ray Train does."""
        self._saved = Saved(step, "", {}, self.best.state())
        meta = json.dumps(asdict(self._saved)).encode()
        self._store.put(f"{self._folder}/step-{step:08d}/{META}", meta)
        kept = sorted({info.key.split("/")[4] for info in self._store.list(f"{self._folder}/")})
        for name in kept[:-2]:
            self._store.delete_prefix(f"{self._folder}/{name}/")

    def killed(self) -> None:
        """Lose the process, and resume from the last checkpoint."""
        self.best = self._begun()
        self.best.resume(self._saved, STEPS)

    def snapshots(self) -> list[int]:
        """Return the steps whose snapshots are in the store."""
        found = range(STEPS + 1)
        return [one for one in found if complete(self._store, self._run, JOB, one)]


@pytest.fixture
def job(seaweed: ObjectStore) -> SftJob:
    return SftJob(seaweed)


def test_a_resumed_job_has_the_best_step_of_its_checkpoint(job: SftJob) -> None:
    """Three validations lower the loss after the last checkpoint. Then the job is killed."""
    job.validate(2, 0.5)
    job.checkpoint(3)
    for step, loss in ((4, 0.4), (6, 0.3), (8, 0.2)):
        job.validate(step, loss)
    job.killed()
    assert job.best.found is not None and job.best.found.step == 2
    job.validate(4, 0.6)
    assert job.best.found.step == 2 and job.snapshots() == [2]


def test_the_store_keeps_the_best_steps_of_all_checkpoints_and_no_others(job: SftJob) -> None:
    """The store holds two checkpoints, and the job may resume from either one."""
    for step in range(1, 7):
        job.validate(step, 1 / step)
        if step % 2 == 0:
            job.checkpoint(step)
    assert job.snapshots() == [2, 4, 6]
    job.validate(7, 0.01)
    assert job.snapshots() == [4, 6, 7]
    job.validate(8, 0.02)
    job.checkpoint(8)
    job.validate(9, 0.001)
    assert job.snapshots() == [6, 7, 9]
    job.best.forget()
    assert job.snapshots() == []


def test_a_job_that_begins_anew_keeps_no_snapshot_of_a_lost_one(job: SftJob) -> None:
    job.validate(2, 0.5)
    job.killed()
    assert job.best.found is None and job.snapshots() == []


def test_the_last_step_needs_no_snapshot(job: SftJob) -> None:
    """The checkpoint of the last step has this step's state."""
    job.validate(STEPS, 0.5)
    job.checkpoint(STEPS)
    job.best.forget()
    job.killed()
    assert job.best.found is not None and job.best.found.step == STEPS
