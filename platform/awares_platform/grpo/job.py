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

- If an actor or its engine dies or hangs, its prompts are issued again, and another actor replaces
  it.
- If the learner dies or hangs, Ray Train restarts it from its last checkpoint. `attach` then
  restores the groups that the learner took after this checkpoint.
- If the controller or the trainer (the process of Ray Train) dies or hangs, this driver starts both
  again (supervisor.py). They resume from the last checkpoint and the journal.
- If a cloud gives notice that it takes the node of an actor back, the actor hands back its
  unfinished groups. Another actor continues them.
- If this driver gets SIGTERM or Ctrl-C, all actors hand back their groups. The journal keeps them,
  and the learner saves a checkpoint after its present step. The next job continues both.
- If this driver dies, start the job again.
- If nodes are missing, the job waits and says what it needs.
- If an engine fails the canary check of a load, `batch` returns None, the learner returns, and the
  job raises CanaryMismatch.
"""

import asyncio
import logging
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import ray
import ray.train
from ray.train.torch import TorchConfig

from awares.errors import MissingPolicy, PolicyError
from awares.evaluation.scorers import score_answer, scorer
from awares.sample import Sample
from awares_platform.config import PlatformConfig
from awares_platform.config.evaluate import EvaluateConfig
from awares_platform.config.grpo import GrpoConfig
from awares_platform.data.dataset import read_manifest, read_split
from awares_platform.data.held_out import divide
from awares_platform.data.manifest import samples_digest
from awares_platform.grpo.announcing import announce_versions
from awares_platform.grpo.buffer import EpisodeBuffer
from awares_platform.grpo.collecting import collect_rarely
from awares_platform.grpo.controller import Controller
from awares_platform.grpo.journal import Journal
from awares_platform.grpo.notices import watch_nodes
from awares_platform.grpo.prompts import Prompts, labelled
from awares_platform.grpo.record_book import StoredBook
from awares_platform.grpo.supervisor import Supervisor
from awares_platform.grpo.validation import HeldOut, Validation
from awares_platform.method.family import model_family
from awares_platform.runtime.awaited import awaited
from awares_platform.runtime.collected_warnings import CollectedWarnings, Sign
from awares_platform.runtime.driver import beside_driver
from awares_platform.runtime.job_lease import LeaseClaim, hold, require_held, run_lease
from awares_platform.runtime.progress import Progress
from awares_platform.runtime.run import Run
from awares_platform.runtime.watch import FailureRate
from awares_platform.store import ObjectStore
from awares_platform.training import checkpoint
from awares_platform.training.curated_set import with_labels
from awares_platform.training.export import policy_key, read_meta
from awares_platform.training.inputs import check_stored
from awares_platform.training.lineage import check_lineage, policy_digest, remedy
from awares_platform.training.recipe import Recipe, digest, grpo_recipe, require_same
from awares_platform.training.source import JOBS
from awares_platform.training.start import starting_adapter, starting_policy
from awares_platform.training.trainer import ThisProcessTrainer, TrainingProcess
from awares_platform.weights import Subscriber

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class GrpoResult:
    """The result of a finished job.

    Example:
        GrpoResult("runs/mini/policies/awares", 40, 30, {"reward/mean": 9.1}, wall_s=212.0)
    """

    policy: str
    """The key of the exported policy in the store."""
    steps: int
    """The number of learner steps of the whole run."""
    best: int
    """The number of learner steps that led to the exported policy."""
    metrics: dict[str, float]
    """The metrics of the last step, or {} if an earlier job finished all steps."""
    wall_s: float
    """The duration of this job in seconds."""

    def summary(self, store: str) -> str:
        """Return the number of steps, the duration and the policy's address, as two lines of text.

        The text also states how many questions were left out. `store` is the address of the store.
        """
        took = f"in {self.wall_s:.0f} s" if self.metrics else "by an earlier job"
        if unplayable := self.metrics.get("data/unplayable"):
            took += f", {unplayable:.0f} questions left out because they cannot be played"
        if self.best != self.steps:
            took += f"; the best policy is that of step {self.best:,}"
        return f"grpo: finished {self.steps:,} steps {took}\npolicy: {store}/{self.policy}"


def run(config: PlatformConfig) -> GrpoResult:
    """Train runs/<run>/policies/awares, or resume where an earlier job of this run ended.

    Ray must be initialised. The function raises:
    - JobRefused or JobFenced if another grpo job has the run.
    - ConfigError if a part of the method cannot be built.
    - PolicyError or DataError if the starting policy or the data cannot be used.
    - CanaryMismatch if an engine fails the canary check.
    - GuardTripped if a guard stops the run.
    - LaunchError if processes are lost too often or no batch becomes ready in time.
    - The learner's last error if the learner fails too often.
    """
    started = time.monotonic()
    store = ObjectStore.from_config(config.store)
    with hold(store, run_lease(config.run.name, "grpo"), "grpo") as claim:
        found = awaited("grpo", config.run.wait_s, lambda: _with_inputs(config, store))
        metrics = _train(found, store, claim)
    seconds, policy = time.monotonic() - started, policy_key(config.run.name, "awares")
    meta = read_meta(store, config.run.name, "awares")
    assert meta is not None, "the learner has exported the policy"
    return GrpoResult(policy, meta.get("steps", meta["step"]), meta["step"], metrics, seconds)


def _train(config: PlatformConfig, store: ObjectStore, claim: LeaseClaim) -> dict[str, float]:
    """Train the policy, and return the last step's metrics.

    Return {} if an earlier job has already finished the policy.
    """
    run, settings = config.run.name, config.grpo
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
        return Supervisor(config, _start, loop).steer(record, progress)


def _with_inputs(config: PlatformConfig, store: ObjectStore) -> PlatformConfig:
    """Check the starting policy, and return `config` with the curated set's name in data.labels.

    The check reports a missing policy before any actor starts.
    """
    run = config.run.name
    try:
        _check_start(config, store)
    except MissingPolicy as error:
        if not _has_trained(store, run):
            raise
        # Do not wait for another starting policy: `is_finished` would then refuse the run.
        raise PolicyError(f"{error}. After a new training, {remedy(run, 'awares')}") from error
    return with_labels(config, store)


def _check_start(config: PlatformConfig, store: ObjectStore) -> None:
    """Raise MissingPolicy if `awares sft` has to train the starting policy, or train it again."""
    run, start = config.run.name, config.grpo.start
    check_lineage(store, run, "awares", config.policy.base, start)
    starting_policy(store, run, start, config.policy, model_family(config.policy))
    if start != "base":
        check_stored(store, policy_key(run, start), config.method, JOBS[start])


def _has_trained(store: ObjectStore, run: str) -> bool:
    """Return whether the run holds the policy "awares" or a checkpoint of grpo."""
    if read_meta(store, run, "awares") is not None:
        return True
    return checkpoint.stored_identity(store, run, "grpo") is not None


def recipe_of(config: PlatformConfig, store: ObjectStore) -> Recipe:
    """Return the recipe of the policy "awares".

    Raises PolicyError if the starting policy does not exist, and DataError if the curated set does
    not exist.
    """
    run, start = config.run.name, config.grpo.start
    found = policy_digest(store, run, start, config.policy.base)
    if found is None:
        raise PolicyError(f"run {run!r} has no policy {start!r} (grpo.start): train it first")
    data = read_manifest(store, config.data.curated, "train")
    adapter = starting_adapter(store, run, start, config.policy)
    return grpo_recipe(config, found, samples_digest(data), adapter)


def is_finished(store: ObjectStore, run: str, recipe: Recipe) -> bool:
    """Return whether the run holds the finished policy "awares".

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


def _start() -> tuple[Any, Any]:
    """Start the controller and the trainer as actors on this node, and return their handles."""
    controller: Any = ray.remote(**beside_driver())(ControllerActor).remote()
    trainer: Any = ray.remote(**beside_driver(max_concurrency=2))(TrainerActor).remote()
    return controller, trainer


class ControllerActor(Controller):
    """The controller as a Ray actor, with the real journal, reward and rollout actors.

    Call `open` first. The constructor does nothing, because Ray reports an error in a constructor
    only as text.
    """

    def __init__(self) -> None:
        self._opened = False
        self._warnings = CollectedWarnings.collect()

    async def ping(self) -> Sign:
        """Return how many rollout actors wait for a node, and the warnings since the last call."""
        return Sign(self.unplaced if self._opened else 0, self._warnings.take())

    async def open(self, config: PlatformConfig, reported: Collection[int] = ()) -> tuple[int, int]:
        """Read the data, and build the reward unless reward workers build it.

        `reported` holds the validated versions in metrics.jsonl. Return the numbers of usable
        samples and unusable rows. Raises DataError or StoreError if the data is unusable,
        ConfigError if the reward is, and PolicyError without a starting policy.
        """
        from awares_platform.grpo.reward_actor import rewards
        from awares_platform.grpo.rollout import RemoteActor

        store = self._store = ObjectStore.from_config(config.store)
        settings = config.grpo
        # Read in a thread, so that the event loop can answer `ping` meanwhile.
        split = await asyncio.to_thread(read_split, store, config.data.curated, "train")
        trained, held_out = divide(split.samples, config.data.held_out)
        samples = labelled(trained)
        self._rewards = rewards(settings, config.method, config.run.hang_timeout_s, self.stop)
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
            Validation(
                held_out_of(held_out, settings, config.evaluate),
                self._rewards,
                StoredBook(store, config.run.name),
                reported,
            ),
            packed=config.policy.packed,
            hang_timeout_s=config.run.hang_timeout_s,
            can_score=lambda: self._rewards.ready,
        )
        self._opened = True
        return len(samples), len(trained) - len(samples) + len(split.faults)

    async def run(self) -> None:
        """Keep the reward workers and the actors running until `close`."""
        collect_rarely(self._settings)
        watching = (
            asyncio.create_task(announce_versions(self._weights, self.announce, self._poll_s)),
            asyncio.create_task(watch_nodes(self.leave)),
        )
        try:
            async with self._rewards:
                await super().run()
        finally:
            for task in watching:
                task.cancel()

    async def hand_over(self, claim: LeaseClaim, within_s: float) -> tuple[int, bool]:
        """Drain the actors before the job ends, and return what `drain` returns.

        Raises JobFenced if another job has taken the run over, so that only that job writes.
        Raises StoreError if the store fails.
        """
        if not self._opened:
            return 0, False
        await asyncio.to_thread(require_held, self._store, claim)
        return await self.drain(within_s)


def held_out_of(
    samples: Sequence[Sample], settings: GrpoConfig, evaluate: EvaluateConfig
) -> HeldOut:
    """Return the held-out samples that have a label, with the function that scores answers."""
    usable = tuple(sample for sample in samples if sample.label is not None)
    version = evaluate.scorer_version
    judge = partial(score_answer, default=scorer(evaluate.scorer, version), version=version)
    return HeldOut(usable, judge, settings.validation, settings.steps)


def journal_of(config: PlatformConfig, store: ObjectStore) -> Journal:
    """Return the journal of the run for the recipe of `config`. Raises as `recipe_of` does."""
    return Journal(store, config.run.name, digest(recipe_of(config, store)))


class TrainerActor(TrainingProcess):
    """Runs Ray Train in a separate process. The driver can end Ray Train by killing this process.

    In the driver itself, Ray Train would replace the handler of SIGINT (Ctrl-C).
    """

    def fit(self, config: PlatformConfig, controller: Any, loop: dict[str, Any]) -> None:
        """Run the learner to its end, then close the controller.

        Raises TrainingFailedError if the learner fails more than grpo.learner_restarts times within
        an hour.
        """
        try:
            self.train(_trainer(config, controller, loop), config.run.hang_timeout_s)
        finally:
            ray.get(controller.close.remote())


def _trainer(config: PlatformConfig, controller: Any, loop: dict[str, Any]) -> ThisProcessTrainer:
    from awares_platform.grpo.learner import learn

    settings = config.grpo
    gpu = settings.learner_gpus > 0
    resources = {"CPU": settings.learner_cpus, **({"GPU": settings.learner_gpus} if gpu else {})}
    return ThisProcessTrainer(
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
            FailureRate(settings.learner_restarts).count,
            settings.keep_checkpoints,
            "learner rank",
        ),
    )
