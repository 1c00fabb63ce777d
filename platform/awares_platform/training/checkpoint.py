"""Checkpoints: all ranks save, Ray Train publishes them under runs/<run>/checkpoints/<job> in the store, a restarted run resumes.

    every rank --DeepSpeed shards--> its own directory --report (barrier)--> S3: step-00000050/ --last--> Ray Train's snapshot file

The snapshot is written after the last shard has arrived, and it alone names the checkpoint to resume from: published means
complete. It serves a worker group restarted after a lost worker and a job started anew after kill -9 alike. Ray Train writes it when its
controller next looks after the workers (RAY_TRAIN_HEALTH_CHECK_INTERVAL_S, 2 s): a store that dies sooner has the checkpoint before.

ZeRO shards its state over the workers, so a checkpoint fits its own number of workers and stage only; `restore` says so instead of
failing deep inside. What leaves a run (zero.full_state, policy.export_policy, the weight bus) is free of any topology. Frozen weights are
not saved: a resumed run has them from the policy that it started from.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow.fs
import ray.train
import torch.distributed

from awares.errors import PolicyError
from awares_platform.config.store import StoreConfig
from awares_platform.training.failure import FailFast

_TAG = "zero"
_META = "awares.json"
_ATTEMPTS = 8  # with exponential waits between them: about as long as store.retry_budget_s


@dataclass(frozen=True, slots=True)
class Saved:
    """What a checkpoint says of itself. `state` is the job's own (JSON); `identity` must be equal when the run goes on.

    Example:
        Saved(step=50, workers=1, stage=2, parameters="9f2c...", identity={"seed": 0}, state={})
    """

    step: int
    workers: int
    stage: int
    parameters: str
    identity: dict[str, Any]
    state: dict[str, Any]


def run_config(
    store: StoreConfig, run: str, job: str, max_failures: int, keep: int
) -> ray.train.RunConfig:
    """Ray Train's configuration: its files and the checkpoints live in the run's own store, `keep` of them."""
    path = "/".join(
        part for part in (store.bucket, store.prefix, "runs", run, "checkpoints") if part
    )
    return ray.train.RunConfig(
        name=job,
        storage_path=path,
        storage_filesystem=filesystem(store),
        failure_config=ray.train.FailureConfig(max_failures=max_failures),
        checkpoint_config=ray.train.CheckpointConfig(num_to_keep=keep),
        callbacks=[FailFast()],
    )


def filesystem(store: StoreConfig) -> pyarrow.fs.S3FileSystem:
    """The store as a pyarrow file system; credentials come from the environment, as everywhere."""
    options: dict[str, Any] = {
        "region": store.region,
        "retry_strategy": pyarrow.fs.AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS),
    }
    if store.endpoint is not None:
        endpoint = urlsplit(store.endpoint)
        options |= {"endpoint_override": endpoint.netloc, "scheme": endpoint.scheme}
    return pyarrow.fs.S3FileSystem(**options)


def save(
    engine: Any,
    step: int,
    identity: Mapping[str, Any],
    state: Mapping[str, Any],
    metrics: Mapping[str, float],
) -> None:
    """Publish a checkpoint after `step` finished steps. Every rank calls it, the same number of times; returns when it is in the store."""
    with tempfile.TemporaryDirectory(prefix="awares-checkpoint-") as directory:
        write(engine, Path(directory))
        if engine.global_rank == 0:
            saved = _describe(engine, step, identity, state)
            Path(directory, _META).write_text(json.dumps(asdict(saved)))
        checkpoint = ray.train.Checkpoint.from_directory(directory)
        ray.train.report(
            dict(metrics), checkpoint=checkpoint, checkpoint_dir_name=f"step-{step:08d}"
        )


def restore(engine: Any, identity: Mapping[str, Any]) -> Saved | None:
    """Load the newest complete checkpoint into `engine`; None on a fresh start. Every rank calls it.

    Raises PolicyError, naming both sides, if the checkpoint is of another model, topology or identity.
    """
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return None
    with checkpoint.as_directory() as directory:
        saved = _read_meta(Path(directory, _META), checkpoint.path)
        _check(saved, _describe(engine, saved.step, identity, saved.state), checkpoint.path)
        read(engine, Path(directory))
        torch.distributed.barrier()  # nobody leaves the block, and so removes the files, while another rank reads
    return saved


def _read_meta(path: Path, checkpoint: str) -> Saved:
    try:
        return Saved(**json.loads(path.read_bytes()))
    except (FileNotFoundError, ValueError, TypeError) as error:
        remedy = f"delete {os.path.dirname(checkpoint)} to start this job anew"
        raise PolicyError(
            f"checkpoint {checkpoint} does not say what it is of ({path.name}: {error}): {remedy}"
        ) from error


def write(engine: Any, directory: Path) -> None:
    """This rank's part of the engine's state, and rank 0's of what is not sharded, into a directory."""
    engine.save_checkpoint(
        str(directory),
        tag=_TAG,
        save_latest=False,
        exclude_frozen_parameters=_partly_frozen(engine),
    )


def read(engine: Any, directory: Path) -> None:
    """Load what `write` wrote on all ranks. Raises PolicyError if it is not there."""
    loaded, _ = engine.load_checkpoint(
        str(directory), tag=_TAG, load_module_strict=not _partly_frozen(engine)
    )
    if loaded is None:
        raise PolicyError(
            f"checkpoint {directory} lacks DeepSpeed's files; delete it to start this job anew"
        )


def _partly_frozen(engine: Any) -> bool:
    return not all(parameter.requires_grad for parameter in engine.module.parameters())


def _describe(
    engine: Any, step: int, identity: Mapping[str, Any], state: Mapping[str, Any]
) -> Saved:
    stage = int(engine.zero_optimization_stage())
    return Saved(
        step,
        engine.world_size,
        stage,
        parameter_digest(engine.module),
        json.loads(json.dumps(dict(identity))),
        dict(state),
    )


def parameter_digest(model: Any) -> str:
    """Digest of the names, shapes and trainability of all parameters: equal for checkpoints that fit each other."""
    lines = (
        f"{n} {tuple(getattr(p, 'ds_shape', p.shape))} {p.requires_grad}"
        for n, p in model.named_parameters()
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _check(found: Saved, wanted: Saved, path: str) -> None:
    remedy = f"restore the setting, or delete {os.path.dirname(path)} to start this job anew"
    if (found.workers, found.stage) != (wanted.workers, wanted.stage):
        raise PolicyError(
            f"checkpoint {path} was saved by {found.workers} worker(s) at ZeRO stage {found.stage}; this run has {wanted.workers} "
            f"worker(s) at stage {wanted.stage}, and ZeRO shards fit their own topology only: {remedy}"
        )
    if found.parameters != wanted.parameters:
        raise PolicyError(
            f"checkpoint {path} holds a model with parameters {found.parameters}; this run's have {wanted.parameters} (policy.base or "
            f"policy.lora_* changed): {remedy}"
        )
    for key in sorted(found.identity.keys() | wanted.identity.keys()):
        if found.identity.get(key) != wanted.identity.get(key):
            raise PolicyError(
                f"checkpoint {path} has {key}={found.identity.get(key)!r}; this run has {key}={wanted.identity.get(key)!r}: {remedy}"
            )
