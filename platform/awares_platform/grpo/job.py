"""Runs the grpo job. The diagram shows the parts of the job and the data that they exchange.

                  prompts, while the buffer has room
    Controller -----------------------------------------------> RolloutActor x N
      |  ^  ^                                                      |       ^
      |  |  +-- G episodes: ids, logprobs, versions, views --------+       | follow HEAD:
      |  |                                                                 | load, then check
      |  RewardPool: rewards, advantages, in reward workers                | the canary
      |  v                                                                 |
      | EpisodeBuffer --> Journal (S3, one segment per step)            weights (S3)
      |  |                                                                 ^
      |  +-- batch(step, version): the oldest groups --> Learner x M       | publish
      |        the learner waits here, and only here     (Ray Train,       |
      |                                                   DeepSpeed) ------+
      |                                                     |     |
      +<-- learned(step, metrics) --------------------------+     +-- every k steps: checkpoint
      |                                                               (S3): weights, optimizer,
      +--- record() --> this driver: metrics.jsonl, progress          step, position

An actor waits while the buffer has no room. The learner waits until the groups of its batch are
ready. While it trains, `upcoming` names the views of the next batch, and a thread prepares them.

Failures:

- If an actor dies, its prompts are issued again, and another actor replaces it.
- If the learner dies, Ray Train restarts it from its last checkpoint. `attach` then restores the
  groups that the learner took after this checkpoint.
- If the controller or this driver dies, start the job again. The new job resumes from the last
  checkpoint and the journal.
- If an engine fails the canary check of a load, `batch` returns None, the learner returns, and the
  job raises CanaryMismatch.
"""

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import Any

import ray
import ray.train
from ray.train.torch import TorchConfig, TorchTrainer

from awares.errors import PolicyError
from awares_platform.config import PlatformConfig
from awares_platform.config.tracking import TrackingConfig
from awares_platform.data.dataset import Images, read_manifest, read_split
from awares_platform.grpo.announcing import announce_versions
from awares_platform.grpo.buffer import EpisodeBuffer
from awares_platform.grpo.collecting import collect_rarely
from awares_platform.grpo.controller import Controller
from awares_platform.grpo.guards import Guards
from awares_platform.grpo.journal import Journal
from awares_platform.grpo.prompts import Prompts, labelled
from awares_platform.grpo.sample_table import sample_rows
from awares_platform.method.family import model_family
from awares_platform.runtime.job_lease import LeaseClaim, hold, run_lease
from awares_platform.runtime.progress import Progress
from awares_platform.runtime.run import Run
from awares_platform.store import ObjectStore
from awares_platform.training import checkpoint
from awares_platform.training.export import policy_key, read_meta
from awares_platform.training.failure import unwrapped
from awares_platform.training.inputs import check_stored
from awares_platform.training.lineage import check_lineage, policy_digest
from awares_platform.training.recipe import Recipe, digest, grpo_recipe, require_same
from awares_platform.training.source import resolve
from awares_platform.weights import Subscriber

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class GrpoResult:
    """The result of a finished job.

    `policy` is the key of the exported policy in the store. `steps` is the number of learner steps
    of the whole run. `metrics` holds the metrics of the last step, or is empty if an earlier job
    finished all steps. `wall_s` is the duration of this job in seconds.

    Example:
        GrpoResult("runs/mini/policies/awares", 40, {"reward/mean": 9.1}, wall_s=212.0)
    """

    policy: str
    steps: int
    metrics: dict[str, float]
    wall_s: float

    def summary(self, store: str) -> str:
        """Return the number of steps, the duration and the policy's address, as two lines of text.

        The text also states how many questions were left out. `store` is the address of the store.
        """
        took = f"in {self.wall_s:.0f} s" if self.metrics else "by an earlier job"
        if unplayable := self.metrics.get("data/unplayable"):
            took += f", {unplayable:.0f} questions left out because they cannot be played"
        return f"grpo: finished {self.steps:,} steps {took}\npolicy: {store}/{self.policy}"


def run(config: PlatformConfig) -> GrpoResult:
    """Train runs/<run>/policies/awares, or resume where an earlier job of this run ended.

    Ray must be initialised, and the store must be reachable. Raises

    - JobRefused if another grpo job of this run is alive, and JobFenced if it takes over;
    - ConfigError if a part of the method cannot be built;
    - PolicyError if the starting policy cannot be used, or if the run has another recipe;
    - DataError if the data cannot be used;
    - CanaryMismatch if an engine fails the canary check of a version;
    - GuardTripped if a metric leaves the bounds of a guard whose action is "stop";
    - LaunchError if actors die too often, episodes keep failing, or no batch becomes ready in time;
    - ray.train.TrainingFailedError if the learner fails more than grpo.learner_restarts times.
    """
    started = time.monotonic()
    store = ObjectStore.from_config(config.store)
    with hold(store, run_lease(config.run.name, "grpo"), "grpo") as claim:
        metrics = _train(config, store, claim)
    seconds, policy = time.monotonic() - started, policy_key(config.run.name, "awares")
    return GrpoResult(policy, config.grpo.steps, metrics, seconds)


def _train(config: PlatformConfig, store: ObjectStore, claim: LeaseClaim) -> dict[str, float]:
    """Train the policy, and return the last step's metrics, or {} if the policy is finished."""
    run, settings = config.run.name, config.grpo
    check_lineage(store, run, "awares", config.policy.base, settings.start)
    # Report a missing policy here, before any actor starts.
    resolve(store, run, settings.start, config.policy.base, model_family(config.policy))
    if settings.start != "base":
        check_stored(store, policy_key(run, settings.start), config.method)
    recipe = recipe_of(config, store)
    if is_finished(store, run, recipe):
        log.info(
            "%s is there after %d steps; nothing to do", policy_key(run, "awares"), settings.steps
        )
        return {}
    loop = {"recipe": recipe, "claim": claim}
    with (
        Run(config, "grpo", recipe) as record,
        Progress("grpo", total=settings.steps, unit="steps", quiet_s=0.0) as progress,
    ):
        return _steer(config, loop, record, progress)


def recipe_of(config: PlatformConfig, store: ObjectStore) -> Recipe:
    """Return the recipe of the policy awares.

    Raises PolicyError if the starting policy does not exist, and DataError if the curated set does
    not exist.
    """
    run, start = config.run.name, config.grpo.start
    found = policy_digest(store, run, start, config.policy.base)
    if found is None:
        raise PolicyError(f"run {run!r} has no policy {start!r} (grpo.start): train it first")
    return grpo_recipe(config, found, read_manifest(store, config.data.curated, "train"))


def is_finished(store: ObjectStore, run: str, recipe: Recipe) -> bool:
    """Return whether the run holds the finished policy awares.

    Raises PolicyError if the finished policy or a checkpoint has another recipe.
    """
    folder, policy = f"runs/{run}/checkpoints/grpo", policy_key(run, "awares")
    new = "set another run.name, or delete"
    done = read_meta(store, run, "awares")
    if done is not None:
        remedy = f"{new} {policy}/ and {folder}/ from the store"
        require_same(done.get("recipe"), recipe, f"the finished policy {policy}", remedy)
    elif saved := checkpoint.stored_identity(store, run, "grpo"):
        remedy = f"{new} {folder}/ from the store"
        require_same(saved[1], recipe, f"checkpoint {saved[0]}", remedy)
    return done is not None


def _steer(
    config: PlatformConfig, loop: dict[str, Any], record: Run, progress: Progress
) -> dict[str, float]:
    """Run the controller and the trainer, record each step, and return the last step's metrics.

    `loop` holds the recipe and the claim for the learner. Raises the error that stopped the run.
    """
    asks = config.method.max_turns > 1
    guards = Guards(config.grpo.guards, config.run.directory, asks=asks)
    controller: Any = ray.remote(num_cpus=0)(ControllerActor).remote()
    trainer: Any = ray.remote(num_cpus=0)(TrainerActor).remote()
    images = Images.of(ObjectStore.from_config(config.store), config.data)
    try:
        samples, unusable = _finish(controller.open.remote(config))
        progress.say(
            f"{samples} samples" + (f" ({unusable} unusable rows left out)" if unusable else "")
        )
        progress.say("starting the engines and the learner")
        tending, training = controller.run.remote(), trainer.fit.remote(config, controller, loop)
        metrics: dict[str, float] = {}
        while (item := ray.get(controller.record.remote())) is not None:
            step, metrics = item
            # The learner counts from 0. The records count finished steps, like the terminal.
            record.metrics(step + 1, metrics)
            for sentence in guards.check(step + 1, metrics):
                progress.say(sentence)
            progress.advance(step + 1 - progress.done, note=step_note(metrics))
            if step % config.tracking.samples_every == 0:
                _show_samples(config.tracking, record, controller, images)
        _finish(tending)
        _finish(training)
        return metrics
    finally:
        ray.kill(trainer)
        ray.kill(controller)


def _show_samples(tracking: TrackingConfig, record: Run, controller: Any, images: Images) -> None:
    """Send a table with episodes of the newest step to the trackers."""
    if tracking.samples:
        step, groups = ray.get(controller.shown.remote(tracking.samples))
        record.samples(step + 1, lambda: sample_rows(groups, images))


def _finish(task: Any) -> Any:
    """Return the result of `task`. If `task` fails, raise its error without Ray's wrappers."""
    with unwrapped():
        return ray.get(task)


def step_note(metrics: dict[str, float]) -> str:
    """Return a line about a step: what was learned, its seconds, and how busy all parts were."""
    names = {
        "reward": "reward/mean",
        "accuracy": "accuracy/train",
        "RTR": "rtr/token",
        "calls": "call/rate",
        "KL": "policy/kl",
    }
    found = [f"{name} {metrics[key]:.3f}" for name, key in names.items() if key in metrics]
    times = [metrics[key] for key in ("time/wait", "time/learn", "time/publish") if key in metrics]
    found += [f"{sum(times):.1f} s"] if times else []
    shares = {"engines": "engine/busy", "learner": "learner/busy"}
    found += [f"{name} {metrics[key]:.0%} busy" for name, key in shares.items() if key in metrics]
    return ", ".join(found)


class ControllerActor(Controller):
    """The controller as a Ray actor, with the real journal, reward and rollout actors.

    Call `open` first. The constructor does nothing, because Ray reports an error in a constructor
    only as text.
    """

    def __init__(self) -> None:
        pass

    async def open(self, config: PlatformConfig) -> tuple[int, int]:
        """Read the data. Build the reward too, unless reward workers build it.

        Return the number of usable samples and the number of unusable rows. Raises DataError or
        StoreError if the data cannot be used, and ConfigError if the reward cannot be built. Raises
        PolicyError if the starting policy does not exist.
        """
        from awares_platform.grpo.reward_actor import rewards
        from awares_platform.grpo.rollout import RemoteActor

        store = ObjectStore.from_config(config.store)
        settings = config.grpo
        split = read_split(store, config.data.curated, "train")
        samples = labelled(split.samples)
        self._rewards = rewards(settings, config.method, self.stop)
        self._weights, self._poll_s = Subscriber(store, config.run.name), settings.poll_s
        super().__init__(
            settings,
            EpisodeBuffer(
                Prompts(samples, config.run.seed),
                settings.groups_per_step,
                settings.staleness_bound,
            ),
            journal_of(config, store),
            self._rewards,
            lambda index: RemoteActor(config, index),
            packed=config.policy.packed,
        )
        return len(samples), len(split.samples) - len(samples) + len(split.faults)

    async def run(self) -> None:
        """Keep the reward workers and the actors running until `close`."""
        collect_rarely()
        watching = asyncio.create_task(
            announce_versions(self._weights, self.announce, self._poll_s)
        )
        try:
            async with self._rewards:
                await super().run()
        finally:
            watching.cancel()


def journal_of(config: PlatformConfig, store: ObjectStore) -> Journal:
    """Return the journal of the run's groups with this recipe. See `recipe_of` for the errors."""
    return Journal(store, config.run.name, digest(recipe_of(config, store)))


class TrainerActor:
    """Runs Ray Train in a separate process.

    The driver can end Ray Train by killing this process. Ray Train's SIGINT handler is installed in
    this process, and not in the driver.
    """

    def fit(self, config: PlatformConfig, controller: Any, loop: dict[str, Any]) -> None:
        """Run the learner to its end, then close the controller.

        Raises TrainingFailedError if the learner fails more than grpo.learner_restarts times.
        """
        try:
            _trainer(config, controller, loop).fit()
        finally:
            ray.get(controller.close.remote())


def _trainer(config: PlatformConfig, controller: Any, loop: dict[str, Any]) -> TorchTrainer:
    from awares_platform.grpo.learner import learn

    settings = config.grpo
    gpu = settings.learner_gpus > 0
    resources = {"CPU": settings.learner_cpus, **({"GPU": settings.learner_gpus} if gpu else {})}
    return TorchTrainer(
        learn,
        train_loop_config={"config": config.model_dump_json(), "controller": controller, **loop},
        torch_config=TorchConfig(backend="nccl" if gpu else "gloo"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=settings.learner_workers,
            use_gpu=gpu,
            resources_per_worker=resources,
            label_selector=settings.learner_selector or None,
        ),
        run_config=checkpoint.run_config(
            config.store,
            config.run.name,
            "grpo",
            settings.learner_restarts,
            settings.keep_checkpoints,
        ),
    )
