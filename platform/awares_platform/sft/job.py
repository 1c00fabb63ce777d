"""The sft job trains the base policy on curated demonstrations (paper, section 3.3).

    driver --starts, watches--> trainer (Ray Train) --> worker.py x N --> runs/<run>/policies/sft
      ^                                                   |   |
      +---- metrics, from rank 0, through a queue --------+   +--> checkpoints, snapshots

If a worker dies or hangs, Ray Train restarts all workers from the newest checkpoint. If the trainer
dies or hangs, the driver starts it again. A later job with the same recipe (training/recipe.py)
resumes, or returns at once if the policy is finished.
"""

import logging
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import ray
import ray.train
from ray.train.torch import TorchConfig
from ray.util.queue import Empty, Queue

from awares.tokens import Size
from awares_platform.config import PlatformConfig
from awares_platform.config.data import DataConfig
from awares_platform.config.sft import SftConfig
from awares_platform.data.dataset import read_manifest, read_split
from awares_platform.data.image_sizes import read_sizes
from awares_platform.data.images import Images
from awares_platform.data.manifest import samples_digest
from awares_platform.method.family import model_family
from awares_platform.runtime import event_loop
from awares_platform.runtime.awaited import awaited
from awares_platform.runtime.collected_warnings import Sign
from awares_platform.runtime.driver import beside_driver, needs, reply
from awares_platform.runtime.job_lease import LeaseClaim, hold, run_lease
from awares_platform.runtime.progress import Progress
from awares_platform.runtime.run import Run
from awares_platform.runtime.watch import (
    FailureRate,
    Waiting,
    answer_of,
    guarded,
    restarting,
    watch,
)
from awares_platform.sft.order import SampleOrder
from awares_platform.store import ObjectStore
from awares_platform.training import checkpoint
from awares_platform.training.curated_set import with_labels
from awares_platform.training.export import policy_key, read_meta
from awares_platform.training.failure import unwrapped
from awares_platform.training.identity import content_digest
from awares_platform.training.recipe import changes, read_recipe, sft_job, sft_recipe
from awares_platform.training.source import pinned, resolve
from awares_platform.training.trainer import ThisProcessTrainer, TrainingProcess

log = logging.getLogger(__name__)

_POLL_S = 0.5
_TRAINER, _QUEUE = "the trainer", "the queue of the trainer's messages"


@dataclass(frozen=True, slots=True)
class SftResult:
    """The result of the sft job.

    Example:
        SftResult("runs/mini/policies/sft", 120, 0, metrics={"loss/sft": 0.1}, wall_s=61.0)
    """

    policy: str
    """Key of the trained policy in the store."""
    steps: int
    """Number of steps of the whole training."""
    resumed_from: int
    """The step at which this job began."""
    metrics: dict[str, float]
    """Metrics of the last step, or {} if an earlier job finished all steps."""
    wall_s: float
    """Duration of this job in seconds."""

    def summary(self, store: str) -> str:
        """Return the number of steps, the duration and the policy's address, as two lines of text.

        `store` is the address of the store.
        """
        took = f"in {self.wall_s:.0f} s" if self.metrics else "by an earlier job"
        return f"sft: finished {self.steps:,} steps {took}\npolicy: {store}/{self.policy}"


def run(config: PlatformConfig) -> SftResult:
    """Train runs/<run>/policies/sft, or resume where an earlier job of this run ended.

    Ray must be initialised, and the store must be reachable.

    Raises JobRefused if another sft job of this run is alive, and JobFenced if one takes over.
    Raises PolicyError, DataError or StoreError if policy, data or store cannot be used.
    Raises the last error of a worker if the workers fail too often.
    """
    started = time.monotonic()
    config = config.model_copy(update={"policy": pinned(config.policy)})
    store = ObjectStore.from_config(config.store)
    with hold(store, run_lease(config.run.name, "sft"), "sft") as claim:
        found = awaited("sft", config.run.wait_s, lambda: with_labels(config, store))
        return _train(found, store, claim, started)


def _train(
    config: PlatformConfig, store: ObjectStore, claim: LeaseClaim, started: float
) -> SftResult:
    """Train the policy unless it is finished. `started` is the monotonic time of the start."""
    policy = policy_key(config.run.name, "sft")
    data = read_manifest(store, config.data.curated, "train")
    family = model_family(config.policy)
    base = resolve(store, config.run.name, "base", config.policy.base, family)
    recipe = sft_recipe(config, content_digest(base), samples_digest(data))
    settings = config.sft
    order = SampleOrder(data["rows"], settings.batch_size, settings.epochs, config.run.seed)
    done = read_meta(store, config.run.name, "sft")
    if done is not None and done.get("recipe") == recipe:
        log.info("%s is there after %d steps; nothing to do", policy, done["step"])
        return SftResult(policy, done["step"], done["step"], {}, time.monotonic() - started)
    before = read_recipe(store, f"runs/{config.run.name}/sft/recipe.json")
    with Run(config, "sft", recipe) as record:
        sizes = _image_sizes(store, config.data)
        with Progress("sft", order.steps, "steps") as progress:
            for change in changes(before or recipe, recipe):
                progress.say(f"{change}; the policy is trained again")
            loop = {"recipe": recipe, "sizes": sizes, "claim": claim}
            training = _Training(config, loop)
            training.run(record, progress)
    wall_s = time.monotonic() - started
    return SftResult(policy, training.steps, training.first or 0, training.metrics, wall_s)


def _image_sizes(store: ObjectStore, data: DataConfig) -> dict[str, Size]:
    """Map the hash of each image of the curated samples to the image's width and height.

    The workers need the sizes to fill micro-batches. The driver reads them once for all workers.
    """
    samples = read_split(store, data.curated, "train").samples
    digests = {sample.image for sample in samples}
    with Progress("sft", len(digests), "image sizes") as progress:
        sizes = read_sizes(Images.of(store, data), digests, progress.advance)
        if missing := len(digests) - len(sizes):
            progress.say(f"{missing} sizes cannot be read; check images/ in the store")
    return sizes


class _Training:
    """Runs one training. If the trainer process is lost, continues from the last checkpoint.

    `loop` holds the arguments of `worker.train`, except "config" and "messages". `first` is the
    step at which this job began.
    """

    def __init__(self, config: PlatformConfig, loop: dict[str, Any]) -> None:
        self._config, self._loop = config, loop
        self.first: int | None = None
        self.steps = 0
        self.metrics: dict[str, float] = {}

    def run(self, record: Run, progress: Progress) -> None:
        """Train to the end, and record the metrics that rank 0 sends.

        Raises the error that ends the training. Raises LaunchError if the trainer is lost more than
        sft.max_failures times within an hour.
        """
        progress.say("starting trainer processes")
        restarting(
            lambda: event_loop.run(self._attempt(record, progress)),
            FailureRate(self._config.sft.max_failures),
            "sft.max_failures",
            progress.say,
        )

    async def _attempt(self, record: Run, progress: Progress) -> None:
        queue = Queue(actor_options=beside_driver())
        trainer: Any = ray.remote(**beside_driver(max_concurrency=2))(FitActor).remote()
        waiting, limit_s = Waiting(progress.say), self._config.run.hang_timeout_s

        def heard(sign: Sign) -> None:
            sign.tell(progress.say)
            waiting.tell(_ranks(self._config.sft) if sign.waiting else "")

        try:
            await guarded(
                self._train(trainer, queue, record, progress),
                watch(_TRAINER, lambda: reply(_TRAINER, trainer.ping.remote()), limit_s, heard),
            )
        finally:
            ray.kill(trainer)
            queue.shutdown(force=True)

    async def _train(self, trainer: Any, queue: Queue, record: Run, progress: Progress) -> None:
        training = trainer.fit.remote(self._config, self._loop, queue)
        over = False
        while not over:
            over = bool(ray.wait([training], timeout=0)[0])
            with suppress(Empty):
                while True:
                    message = reply(_QUEUE, queue.get_async(timeout=_POLL_S))
                    limit_s = self._config.run.hang_timeout_s
                    self._note(await answer_of(_QUEUE, message, limit_s), record, progress)
        with unwrapped():
            await reply(_TRAINER, training)

    def _note(self, message: tuple[Any, ...], record: Run, progress: Progress) -> None:
        """Record a message of rank 0, and show it."""
        kind, *content = message
        if kind == "start":
            step, self.steps, samples, skipped = content
            self.first = step if self.first is None else self.first
            # The workers have left out unusable rows, so only they know the exact number of steps.
            progress.total = self.steps
            progress.advance(step - progress.done)
            left_out = f" ({skipped} unusable rows left out)" if skipped else ""
            progress.say(f"{samples} samples{left_out}, step {step} of {self.steps}")
        elif kind == "step":
            step, self.metrics = content
            record.metrics(step, self.metrics)
            progress.advance(step - progress.done, note=_note(self.metrics))
            if "validation/loss" in self.metrics:
                progress.say(_validation_note(step, self.metrics))
        else:
            progress.say(f"exported {content[0]}")


def _validation_note(step: int, figures: dict[str, float]) -> str:
    names = {"loss": "loss", "right decisions to ask": "decisions", "right requests": "tool_turns"}
    pairs = ((name, figures.get(f"validation/{key}")) for name, key in names.items())
    found = ", ".join(f"{name} {value:.4g}" for name, value in pairs if value is not None)
    return f"step {step} on {figures['validation/questions']:.0f} held-out demonstrations: {found}"


def _ranks(settings: SftConfig) -> str:
    place = needs(settings.threads, float(settings.use_gpu), settings.selector)
    return f"each of {settings.workers} workers needs {place}"


class FitActor(TrainingProcess):
    """Runs Ray Train in a separate process, which the driver can kill.

    In the driver itself, Ray Train would replace the handler of SIGINT (Ctrl-C), and would end the
    driver after Ray's shutdown.
    """

    def fit(self, config: PlatformConfig, loop: dict[str, Any], queue: Queue) -> None:
        """Train to the end. If training fails, raise TrainingFailedError or ControllerError."""
        self.train(_trainer(config, loop, queue), config.run.hang_timeout_s)


def _trainer(config: PlatformConfig, loop: dict[str, Any], queue: Queue) -> ThisProcessTrainer:
    from awares_platform.sft.worker import train

    settings = config.sft
    resources = {"CPU": settings.threads, **({"GPU": 1} if settings.use_gpu else {})}
    return ThisProcessTrainer(
        train,
        train_loop_config={"config": config.model_dump_json(), "messages": queue, **loop},
        torch_config=TorchConfig(backend="nccl" if settings.use_gpu else "gloo"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=settings.workers,
            use_gpu=settings.use_gpu,
            resources_per_worker=resources,
            label_selector=settings.selector or None,
        ),
        run_config=checkpoint.run_config(
            config.store,
            config.run.name,
            sft_job(loop["recipe"]),
            FailureRate(settings.max_failures).count,
            settings.keep_checkpoints,
            "sft worker",
        ),
    )


def _note(metrics: dict[str, float]) -> str:
    names = {
        "loss": "loss/sft",
        "tool turn": "loss/tool_turn",
        "token accuracy": "accuracy/tokens",
        "tokens/s": "time/tokens_per_s",
    }
    return ", ".join(f"{name} {metrics[key]:.4g}" for name, key in names.items() if key in metrics)
