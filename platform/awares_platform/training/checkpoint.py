"""Saves checkpoints from all ranks to the store through Ray Train, and restores them.

On every rank, shards.py writes the rank's slices to a local directory. A thread then uploads them
to runs/<run>/checkpoints/<job>/step-00000050/, while the next steps train. ObjectStore repeats
failed requests of the upload.

Ray Train keeps a snapshot file, which names the newest complete checkpoint. It writes this file
after the upload, when its controller next polls the workers. The controller polls every 2 seconds
(RAY_TRAIN_HEALTH_CHECK_INTERVAL_S). If the store fails before this poll, the file still names the
previous checkpoint. Ray Train reads the file when a user starts a killed job again.

A checkpoint can be restored with another number of workers, and at another ZeRO stage. Frozen
weights are not saved. A resumed run loads them from the policy from which training started.
"""

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import ray.train
import torch.distributed

from awares.errors import PolicyError
from awares_platform.config.store import StoreConfig
from awares_platform.store import ObjectStore
from awares_platform.store.errors import NotFound
from awares_platform.training import shards
from awares_platform.training.failure import FailFast
from awares_platform.training.filesystem import filesystem, store_of

META = "awares.json"
_POLL_S = 0.05
# This prefix is unique to this process. It does not match directories that killed processes have
# left on the disk. A process id would not be unique, because a restarted container reuses ids.
_PREFIX = f"awares-checkpoint-{uuid4().hex}-"


@dataclass(frozen=True, slots=True)
class Saved:
    """The description that is stored in a checkpoint.

    Example:
        Saved(step=50, parameters="9f2c...", identity={"seed": 0}, state={})
    """

    step: int
    """The number of finished steps."""
    parameters: str
    """The result of `parameter_digest`."""
    identity: dict[str, Any]
    """The settings that must be the same when the run resumes."""
    state: dict[str, Any]
    """JSON values that only the job reads."""


def run_config(
    store: StoreConfig, run: str, job: str, too_many: Callable[[], bool], keep: int, worker: str
) -> ray.train.RunConfig:
    """Return Ray Train's run configuration for the job `job` of the run `run`.

    The store keeps the newest `keep` checkpoints. Failed workers restart until `too_many` returns
    true. `worker` is the word for a worker in messages, such as "learner rank".
    """
    parts = (store.bucket, store.prefix, "runs", run, "checkpoints")
    path = "/".join(part for part in parts if part)
    return ray.train.RunConfig(
        name=job,
        storage_path=path,
        storage_filesystem=filesystem(store),
        # Ray Train's own limit is off, because it would count the failures of the whole run.
        # FailFast counts only the failures of the last hour.
        failure_config=ray.train.FailureConfig(max_failures=-1),
        checkpoint_config=ray.train.CheckpointConfig(num_to_keep=keep),
        callbacks=[FailFast(too_many, worker)],
    )


class Due:
    """Says after which steps a checkpoint is due.

    A checkpoint is due every `every` steps, after step `steps`, and when a cloud provider announces
    that it takes a worker's node back.

    Example:
        due = Due(every=10, steps=120)
        if due(step):
            save(engine, step, identity, state)
    """

    def __init__(self, every: int, steps: int) -> None:
        self._every, self._steps = every, steps
        self._leaving: set[str] = set()

    def __call__(self, step: int) -> bool:
        """Return whether a checkpoint is due after `step` finished steps.

        Every rank must call this function after every step.
        """
        notice = ray.train.get_preemption_info()
        fresh = set(notice.preempted_node_ids) - self._leaving if notice else set()
        self._leaving |= fresh
        return bool(fresh) or step % self._every == 0 or step == self._steps


def save(
    engine: Any,
    step: int,
    identity: Mapping[str, Any],
    state: Mapping[str, Any],
    suffix: str = "",
) -> None:
    """Save a checkpoint after `step` finished steps, and upload it in a thread.

    Every rank must call this function the same number of times. A second checkpoint of a step needs
    a `suffix`. If the upload fails, Ray Train ends this worker.
    """
    wait()
    directory = tempfile.mkdtemp(prefix=_PREFIX)
    shards.write(engine, Path(directory))
    if engine.global_rank == 0:
        write_meta(describe(engine, step, identity, state), Path(directory))
    ray.train.report(
        {},
        checkpoint=ray.train.Checkpoint.from_directory(directory),
        checkpoint_dir_name=f"step-{step:08d}{suffix}",
        checkpoint_upload_mode=ray.train.CheckpointUploadMode.ASYNC,
        delete_local_checkpoint_after_upload=False,
        checkpoint_upload_fn=_upload,
    )


def wait() -> None:
    """Wait until this process has uploaded its last checkpoint and deleted the local files.

    The local disk thus holds at most one checkpoint per rank.
    """
    while any(Path(tempfile.gettempdir()).glob(f"{_PREFIX}*")):
        time.sleep(_POLL_S)


def _upload(local: ray.train.Checkpoint, name: str) -> ray.train.Checkpoint:
    """Upload this rank's shards, delete the local files, and return the uploaded checkpoint."""
    storage: Any = ray.train.get_context().get_storage()
    files, path = storage.storage_filesystem, storage.build_checkpoint_path_from_name(name)
    try:
        store_of(files).upload_directory(local.path, files.handler.key(path))
    finally:
        shutil.rmtree(local.path)
    return ray.train.Checkpoint(path, files)


def restore(engine: Any, identity: Mapping[str, Any]) -> Saved | None:
    """Load the newest complete checkpoint into `engine`, and return its description, or None.

    Every rank must call this function. Raises PolicyError if the checkpoint is damaged, or has
    another model or identity.
    """
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return None
    with checkpoint.as_directory() as directory:
        return load_directory(engine, Path(directory), checkpoint.path, identity)


def load_directory(engine: Any, directory: Path, path: str, identity: Mapping[str, Any]) -> Saved:
    """Load the checkpoint in `directory` into `engine`, and return its description.

    `path` names the checkpoint in errors. The function returns after all ranks have read their
    files.
    """
    saved = _read_meta(directory / META, path)
    _check(saved, describe(engine, saved.step, identity, saved.state), path)
    shards.read(engine, directory, path)
    torch.distributed.barrier()
    return saved


def write_meta(saved: Saved, directory: Path) -> None:
    """Write the description of a checkpoint to a directory with its files."""
    (directory / META).write_text(json.dumps(asdict(saved)), "utf-8")


def _read_meta(path: Path, checkpoint: str) -> Saved:
    try:
        return Saved(**json.loads(path.read_bytes()))
    except (FileNotFoundError, ValueError, TypeError) as error:
        remedy = f"delete {os.path.dirname(checkpoint)} to start this job anew"
        raise PolicyError(
            f"checkpoint {checkpoint} has no usable description ({path.name}: {error}): {remedy}"
        ) from error


def stored(store: ObjectStore, run: str, job: str) -> Iterator[tuple[str, Saved]]:
    """Yield the key and the description of each stored checkpoint of a job.

    Leave out checkpoints with an unreadable description, because `restore` reports them. Also leave
    out checkpoints that Ray Train deletes at this moment.
    """
    for info in store.list(f"runs/{run}/checkpoints/{job}/"):
        if info.key.endswith(f"/{META}"):
            with suppress(ValueError, TypeError, NotFound):
                saved = Saved(**json.loads(store.get(info.key)))
                yield os.path.dirname(info.key), saved


def stored_identity(store: ObjectStore, run: str, job: str) -> tuple[str, dict[str, Any]] | None:
    """Return the key and the identity of a stored checkpoint, or None if there is none.

    All checkpoints of a job have the same identity, so any readable one will do.
    """
    found = next(stored(store, run, job), None)
    return None if found is None else (found[0], found[1].identity)


def describe(
    engine: Any, step: int, identity: Mapping[str, Any], state: Mapping[str, Any]
) -> Saved:
    """Return the description of a checkpoint that `engine` writes now."""
    return Saved(
        step=step,
        parameters=parameter_digest(engine.module),
        identity=json.loads(json.dumps(dict(identity))),
        state=dict(state),
    )


def parameter_digest(model: Any) -> str:
    """Return a digest of each parameter's name, its shape, and whether it is trained.

    A checkpoint can be loaded only into a model with the same digest.
    """
    lines = (
        f"{name} {tuple(getattr(tensor, 'ds_shape', tensor.shape))} {tensor.requires_grad}"
        for name, tensor in model.named_parameters()
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _check(found: Saved, wanted: Saved, path: str) -> None:
    remedy = f"restore the setting, or delete {os.path.dirname(path)} to start this job anew"
    if found.parameters != wanted.parameters:
        raise PolicyError(
            f"checkpoint {path} holds a model with parameters {found.parameters}; this run's have "
            f"{wanted.parameters} (policy.base or policy.lora_* changed): {remedy}"
        )
    for key in sorted(found.identity.keys() | wanted.identity.keys()):
        before, now = found.identity.get(key), wanted.identity.get(key)
        if before != now:
            raise PolicyError(
                f"checkpoint {path} has {key}={before!r}; this run has {key}={now!r}: {remedy}"
            )
