"""The sft job: cold start on curated trajectories (paper, section 3.3).

    datasets/<data.name>-curated --> Ray Train worker x N (training/tuner.py) --every k steps--> runs/<run>/checkpoints/sft
                                         |                     `--at the end--> runs/<run>/policies/sft
                                         +-- figures (queue) --> this driver: metrics.jsonl, progress

A lost worker: Ray Train starts the group anew from the newest checkpoint, at most sft.max_failures times. A lost driver: run the job
again. Checkpoints and the finished policy belong to a recipe (data, base policy, every setting that changes the result): the same recipe
goes on, or returns at once when it is finished; another one starts from the base.
"""

import hashlib
import json
import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.train
from ray.train.torch import TorchConfig, TorchTrainer
from ray.util.queue import Empty, Queue

from awares_platform.config import PlatformConfig
from awares_platform.data.dataset import read_manifest
from awares_platform.runtime.progress import Progress
from awares_platform.runtime.run import Run
from awares_platform.sft.order import SampleOrder
from awares_platform.store import ObjectStore
from awares_platform.training import checkpoint
from awares_platform.training.failure import cause
from awares_platform.training.policy import fingerprint, pinned, policy_key, read_meta, resolve

log = logging.getLogger(__name__)

_POLL_S = 0.5
# A recipe has what changes the policy. Of the method that is what it sees (the rest is curation's and the reward's); of sft, all but how
# the work is divided, which moves results by rounding only (a checkpoint still insists on its own workers and stage).
_METHOD = {"system_prompt", "low_ratio", "min_pixels", "max_pixels"}
_OPERATION = {
    "micro_batch",
    "workers",
    "zero_stage",
    "use_gpu",
    "selector",
    "threads",
    "checkpoint_every",
    "keep_checkpoints",
    "max_failures",
}


@dataclass(frozen=True, slots=True)
class SftResult:
    """`policy` is the exported policy's key in the store; `resumed_from` the step that this call began at; `metrics` those of the last
    step, empty when there was nothing left to do.

    Example:
        SftResult("runs/mini/policies/sft", steps=120, resumed_from=0, metrics={"loss/sft": 0.1}, wall_s=61.0)
    """

    policy: str
    steps: int
    resumed_from: int
    metrics: dict[str, float]
    wall_s: float


def run(config: PlatformConfig) -> SftResult:
    """Train runs/<run>/policies/sft, or go on where an earlier job of this run ended. Ray is initialised, the store reachable.

    Raises PolicyError or DataError where policy, checkpoint or data do not fit, StoreError, and what kept killing the workers.
    """
    started, config = time.monotonic(), pinned(config)
    store = ObjectStore.from_config(config.store)
    policy = policy_key(config.run.name, "sft")
    data = read_manifest(store, f"{config.data.name}-curated", "train")
    recipe = _recipe(
        config, resolve(config, store, "base"), data
    )  # missing data or a misfitting policy ends the job before anything starts
    expected = SampleOrder(
        data["rows"], config.sft.batch_size, config.sft.epochs, config.run.seed
    ).steps
    done = read_meta(store, config.run.name, "sft")
    if done is not None and done.get("recipe") == recipe:
        log.info("%s is there after %d steps; nothing to do", policy, done["step"])
        return SftResult(policy, done["step"], done["step"], {}, time.monotonic() - started)
    with Run(config, "sft") as record, Progress("sft", expected, "steps") as progress:
        resumed_from, steps, metrics = _follow(config, recipe, record, progress)
    return SftResult(policy, steps, resumed_from, metrics, time.monotonic() - started)


def _recipe(config: PlatformConfig, base: Path, data: dict[str, Any]) -> dict[str, Any]:
    """Everything that the finished policy depends on, as JSON."""
    method = config.method.model_dump(mode="json", include=_METHOD)
    parts = {
        "policy": config.policy.model_dump(mode="json"),
        "method": method,
        "sft": config.sft.model_dump(mode="json", exclude=_OPERATION),
    }
    settings = {
        f"{section}.{key}": value
        for section, values in parts.items()
        for key, value in values.items()
    }
    curated = hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]
    return {
        **settings,
        "run.seed": config.run.seed,
        "base": fingerprint(base),
        "data": f"{config.data.name}-curated {curated}",
    }


def _follow(
    config: PlatformConfig, recipe: dict[str, Any], record: Run, progress: Progress
) -> tuple[int, int, dict[str, float]]:
    """Write down what the workers tell until they are done: (first step, steps, last figures)."""
    first, steps, figures = None, 0, {}
    progress.say("starting trainer processes")
    for kind, *message in _messages(config, recipe):
        if kind == "start":
            step, steps, samples, skipped = message
            first = step if first is None else first
            progress.total = steps  # exact now that unusable rows are known
            progress.advance(step - progress.done)
            left_out = f" ({skipped} unusable rows left out)" if skipped else ""
            progress.say(f"{samples} samples{left_out}, step {step} of {steps}")
        elif kind == "step":
            step, figures = message
            record.metrics(step, figures)
            progress.advance(step - progress.done, note=_note(figures))
        else:
            progress.say(f"exported {message[0]}")
    return first or 0, steps, figures


def _messages(config: PlatformConfig, recipe: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    """What rank 0 tells, until training has ended. Raises what ended it early."""
    queue = Queue(actor_options={"num_cpus": 0})
    outcome: list[Exception | None] = []
    training = threading.Thread(
        target=_fit, args=(config, recipe, queue, outcome), name="sft-train", daemon=True
    )
    training.start()  # not in the main thread: there `fit` would take over SIGINT for good
    try:
        while True:
            over = not training.is_alive()
            try:
                yield queue.get(timeout=_POLL_S)
            except Empty:
                if over:
                    break
    finally:
        queue.shutdown(force=True)
    if outcome[0] is not None:
        raise outcome[0]


def _fit(
    config: PlatformConfig, recipe: dict[str, Any], queue: Queue, outcome: list[Exception | None]
) -> None:
    try:
        _trainer(config, recipe, queue).fit()
        outcome.append(None)
    except Exception as error:  # carried to the main thread, which raises it
        outcome.append(cause(error))


def _trainer(config: PlatformConfig, recipe: dict[str, Any], queue: Queue) -> TorchTrainer:
    from awares_platform.sft.worker import tune

    settings = config.sft
    job = f"sft-{hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:12]}"
    resources = {"CPU": settings.threads, **({"GPU": 1} if settings.use_gpu else {})}
    return TorchTrainer(
        tune,
        train_loop_config={"config": config.model_dump_json(), "figures": queue, "recipe": recipe},
        torch_config=TorchConfig(backend="nccl" if settings.use_gpu else "gloo"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=settings.workers,
            use_gpu=settings.use_gpu,
            resources_per_worker=resources,
            label_selector=settings.selector or None,
        ),
        run_config=checkpoint.run_config(
            config.store, config.run.name, job, settings.max_failures, settings.keep_checkpoints
        ),
    )


def _note(figures: dict[str, float]) -> str:
    names = {
        "loss": "loss/sft",
        "tool turn": "loss/tool_turn",
        "token accuracy": "accuracy/tokens",
        "tokens/s": "time/tokens_per_s",
    }
    return ", ".join(f"{name} {figures[key]:.4g}" for name, key in names.items() if key in figures)
