"""Runs one rank of the learner, a data-parallel trainer (Ray Train V2, DeepSpeed ZeRO).

    restore --> publish --> attach --> [ steps ] --> chosen --> export --> close

    a step:  batch --> (snapshot) --> update --> publish --> learned --> (recorded, checkpoint)
               ^ the only place where the learner waits for rollouts

Instead of a batch, the controller may send an order (order.py). The learner never talks to the
actors. A resumed learner publishes its weights under the next free version number.
"""

import time
from collections.abc import Sequence
from typing import Any

import ray
import ray.train
import torch
import torch.distributed
from ray.train.torch import get_device
from torch import Tensor

from awares.batch import Batch, collate
from awares.chat import ChatFormat
from awares.pixels import prepare
from awares.tower import SharedTower
from awares.view import ImageView
from awares_platform.config import PlatformConfig
from awares_platform.data.dataset import Images
from awares_platform.engine.canary import Logprobs, learner_logprobs, to_extra
from awares_platform.engine.canary_samples import build
from awares_platform.grpo.exporting import Exporter
from awares_platform.grpo.group import Position
from awares_platform.grpo.learner_speed import LearnerSpeed, step_work
from awares_platform.grpo.lineage import Lineage, Spans
from awares_platform.grpo.loss_metrics import LossMetrics
from awares_platform.grpo.objective import Objective
from awares_platform.grpo.order import Chosen, Finish, Leave, Restore
from awares_platform.grpo.pixels import ViewCache
from awares_platform.grpo.reference import frozen_reference
from awares_platform.grpo.resuming import resumed, to_state
from awares_platform.grpo.shard import StepShard, TrainSequence
from awares_platform.grpo.warming import Warmer
from awares_platform.method.environment import inputs, system_prompt, vision_limits
from awares_platform.method.family import model_family
from awares_platform.runtime.job_lease import LeaseClaim, require_held
from awares_platform.store import ObjectStore
from awares_platform.training import checkpoint, lora, zero
from awares_platform.training.failure import SkippedSteps
from awares_platform.training.inputs import INPUTS
from awares_platform.training.policy import interface, load_policy, load_processor
from awares_platform.training.pulse import Pulse
from awares_platform.training.recipe import Recipe
from awares_platform.training.snapshot import Snapshots
from awares_platform.training.speed import peak_flops, sizes_of
from awares_platform.training.start import starting_policy
from awares_platform.training.zero import OptimizerStep
from awares_platform.weights import Cadence, Identity, Publisher
from awares_platform.weights.adapter import read_peft

_REPAIR_EVERY_S = 5.0


def learn(loop: dict[str, Any]) -> None:
    """Run one rank, as Ray Train's train_loop_per_worker.

    `loop` holds "config" (PlatformConfig as JSON), "controller" (an actor handle), "recipe" (of
    training/recipe.py) and "claim" (LeaseClaim).
    """
    config = PlatformConfig.model_validate_json(loop["config"])
    torch.set_num_threads(config.grpo.learner_threads)
    Learner(config, loop["controller"], loop["recipe"], loop["claim"]).run()


class Learner:
    """One rank of the learner, with the rank's model, optimizer and connections."""

    def __init__(
        self, config: PlatformConfig, controller: Any, recipe: Recipe, claim: LeaseClaim
    ) -> None:
        settings = config.grpo
        self._recipe, self._claim = recipe, claim
        self._config, self._settings, self._controller = config, settings, controller
        context = ray.train.get_context()
        self._rank, self._ranks = context.get_world_rank(), context.get_world_size()
        self._store = ObjectStore.from_config(config.store)
        self._family = model_family(config.policy)
        start = starting_policy(
            self._store, config.run.name, settings.start, config.policy, self._family
        )
        self._begun, self._source = start, start.weights
        gpu = settings.learner_gpus > 0
        self._device = get_device() if gpu else torch.device("cpu")
        model = self._load()
        work = step_work(settings, config.policy, sizes_of(model, self._family))
        peak = peak_flops(self._device, getattr(torch, config.policy.dtype))
        self._speed = LearnerSpeed(work, peak)
        frozen = frozen_reference(model, self._load, settings, config.policy)
        self._served = getattr(torch, config.engine.dtype)
        self._engine = zero.initialize(model, zero.settings_of(settings, config.policy.dtype), gpu)
        method = config.method
        self._inputs = inputs(method)
        processor = load_processor(self._source, self._family, method.min_pixels, method.max_pixels)
        self._processor = processor
        self._chat = ChatFormat(processor.tokenizer, system_prompt(method), self._family.chat)
        self._images = Images.of(self._store, config.data)
        self._limits, self._views = vision_limits(method, self._family), ViewCache()
        self._warmer = Warmer(self._views, self._images, self._prepare)
        self._canary = build(
            self._store,
            config.data,
            self._chat,
            self._limits,
            method.low_ratio,
            config.engine.max_model_len,
        )
        self._objective = Objective(
            self._engine,
            frozen,
            self._collate,
            settings,
            self._ranks,
            tower=self._shared_tower(frozen),
            blocked_ids=self._chat.blocked_ids,
            packed=config.policy.packed,
        )
        self._scores = self._rank == 0 or settings.zero_stage == 3
        # The canary's logprobs under the starting policy, before a checkpoint replaces its weights.
        # The canary check compares how far the engine's and the learner's logprobs have changed.
        self._start = self._canary_logprobs() if self._scores else None
        self._spans: Spans = ()
        self._first = 0
        self._snapshots = Snapshots(self._engine, self._store, config.run.name, "grpo", recipe)
        self._exporter = Exporter(
            self._engine, self._store, self._begun, self._family, recipe, method
        )
        self._publisher = self._make_publisher()
        self._skipped = SkippedSteps(settings.max_skipped_steps, "grpo")
        self._pulse = Pulse(config.run.hang_timeout_s)

    def _load(self) -> torch.nn.Module:
        """Load the starting policy. With ZeRO-3, a rank holds only its slices of the weights."""
        model = load_policy(
            self._source,
            self._config.policy,
            self._config.run.seed,
            partitioned=self._settings.zero_stage == 3,
            gpu=self._settings.learner_gpus > 0,
        )
        if self._begun.adapter is not None:
            lora.continue_from(model, *read_peft(self._begun.adapter))
        return model.to(self._device)

    def _shared_tower(self, frozen: Any) -> SharedTower:
        models = [self._engine.module] + ([frozen] if frozen is not None else [])
        # With ZeRO-3 the models do not share the vision tower's features. DeepSpeed gathers weights
        # in the order of the first pass, so every pass must run the tower.
        return SharedTower(models if self._settings.zero_stage < 3 else [], self._family.tower)

    def _make_publisher(self) -> Publisher:
        # A new Publisher prevents all earlier publishers of the run from publishing. So first check
        # that no other job has taken the run over.
        require_held(self._store, self._claim)
        processor, template = interface(self._source)
        return Publisher(
            self._store,
            self._config.run.name,
            rank=self._rank,
            ranks=self._ranks,
            agree=_agree,
            identity=Identity(processor, template, lora.scale(self._engine.module)),
            cadence=Cadence(self._settings.anchor_every, self._settings.keep_versions),
            threads=self._settings.learner_threads,
        )

    def run(self) -> None:
        """Run the loop that the diagram at the top of this module shows."""
        saved = checkpoint.restore(self._engine, self._recipe)
        step, position, self._spans = resumed(saved)
        version, is_saved = self._attach(step, position), True
        due = checkpoint.Due(self._settings.checkpoint_every, self._settings.steps)
        while step < self._settings.steps:
            asked = time.monotonic()
            shard = self._next(step, version)
            self._warmer.end()
            if shard is None:
                # Either the controller has stopped the run and raises the error itself, or a newer
                # learner has replaced this one.
                return
            if isinstance(shard, Restore):
                version, is_saved = self._restore(shard, step, position), True
                continue
            if isinstance(shard, Finish | Leave):
                if not is_saved:
                    self._save(step, position, version)
                if isinstance(shard, Finish):
                    break
                checkpoint.wait()
                return
            version = self._step(shard, version, asked)
            step, position = step + 1, shard.position
            if is_saved := due(step):
                self._save(step, position, version)
        self._end(step, position, version)

    def _save(self, step: int, position: Position, version: int, suffix: str = "") -> None:
        # A learner that resumes from this checkpoint writes no earlier metrics and snapshots again,
        # so wait until they are complete.
        self._tell("recorded")
        self._snapshots.wait()
        state = to_state(position, version, Lineage(self._spans, self._first))
        checkpoint.save(self._engine, step, self._recipe, state, suffix)

    def _attach(self, step: int, position: Position) -> int:
        """Publish the present weights, tell the controller their version, and return it."""
        version = self._publish(step)
        self._first = version
        self._tell("attach", version, position, self._spans)
        return version

    def _step(self, shard: StepShard, version: int, asked: float) -> int:
        """Take one step, and return the version of the weights after it.

        `asked` is the time at which the learner asked for the batch.
        """
        step, started = shard.step, time.monotonic()
        if shard.keep:
            self._keep(step, version)
        self._prepare_next(step + 1, version + 1)
        metrics, changed = self._update(shard)
        updated = time.monotonic()
        if changed:
            version = self._publish(step + 1)
        published = time.monotonic()
        times = {
            "time/wait": started - asked,
            "time/learn": updated - started,
            "time/publish": published - updated,
            "learner/busy": (updated - started) / (published - asked),
        }
        self._tell("learned", step, {**metrics, **times, **self._published()})
        return version

    def _next(self, step: int, version: int) -> StepShard | Finish | Leave | Restore | None:
        """Return this rank's shard of the next batch, or an order of the controller.

        Return None if this learner must stop.
        """
        return self._awaited(self._controller.batch.remote(step, version, self._rank, self._ranks))

    def _awaited(self, coming: Any) -> Any:
        """Wait for the controller's answer, and return it.

        During the wait, publish a complete copy of the newest version if an actor has found it
        damaged.
        """
        while not ray.wait([coming], timeout=_REPAIR_EVERY_S)[0]:
            self._publisher.repair()
        return ray.get(coming)

    def _prepare_next(self, step: int, version: int) -> None:
        """Prepare the views of the batch of `step` in a thread, while this rank trains."""
        if step < self._settings.steps:
            coming = self._controller.upcoming.remote(step, version, self._rank, self._ranks)
            self._warmer.begin(lambda: ray.get(coming))

    def _tell(self, method: str, *arguments: Any) -> Any:
        """Call the controller from rank 0. All ranks return the controller's answer."""
        answer = None
        if self._rank == 0:
            answer = ray.get(getattr(self._controller, method).remote(*arguments))
        return _agree(answer)

    # -- one step

    def _update(self, shard: StepShard) -> tuple[dict[str, float], bool]:
        """Take one optimizer step for each minibatch that has episodes.

        Return metrics over all ranks, and whether the weights have changed. Raises Diverged after
        too many steps in a row without finite gradients.
        """
        metrics, started = LossMetrics(), time.monotonic()
        proximal = self._objective.proximal(shard)
        steps: list[OptimizerStep] = []
        # Do not count the passes of `proximal`: `step_work` adds their FLOPs to each batch.
        self._speed.reset()
        rate = self._settings.learning_rate * (1 - shard.step / self._settings.steps)
        for index, minibatch in enumerate(shard.minibatches):
            if minibatch.total:
                before = proximal[index] if proximal else None
                losses = self._objective.losses(minibatch, before, metrics)
                with self._pulse.step():
                    steps.append(zero.step(self._engine, self._pulse.beats(losses), rate))
                self._skipped.count(shard.step, steps[-1].taken, metrics.fault)
        found = {
            **metrics.reduced(len(steps)),
            **self._speed.reduced(time.monotonic() - started),
            "policy/grad_norm": max((step.norm for step in steps), default=0.0),
            "policy/skipped_steps": float(sum(not step.taken for step in steps)),
            "policy/learning_rate": rate,
        }
        return found, any(step.taken for step in steps)

    def _collate(self, sequences: tuple[TrainSequence, ...]) -> Batch:
        batch = collate(
            [item.episodes[0] for item in sequences],
            self._images,
            self._processor,
            self._limits,
            self._config.method.low_ratio,
            remember=self._views,
        )
        self._speed.count(batch, filler=sequences[0].filler)
        return batch.to(self._device)

    def _prepare(self, views: Sequence[ImageView]) -> tuple[Tensor, Tensor]:
        return prepare(
            views,
            images=self._images,
            processor=self._processor,
            limits=self._limits,
            low_ratio=self._config.method.low_ratio,
        )

    # -- weights

    def _publish(self, step: int) -> int:
        """Begin to publish the current weights, their lineage and their logprobs of the canary.

        Return the new version. The upload goes on during the next step.
        """
        extra: dict[str, Any] = {"lineage": self._spans, INPUTS: self._inputs}
        if self._scores:
            extra["canary"] = to_extra(self._canary, self._canary_logprobs(), self._start)
        return self._publisher.begin(zero.owned(self._engine, self._served), extra, step=step)

    def _published(self) -> dict[str, float]:
        """Return the metrics of the last version whose upload is finished."""
        last = self._publisher.last
        return {} if last is None else last.metrics()

    def _canary_logprobs(self) -> Logprobs:
        """Return the canary's logprobs, computed with weights rounded to the engine's data type.

        Under ZeRO-3 this method runs collectives, so every rank must call it.
        """
        with zero.rounded(self._engine, self._served):
            return learner_logprobs(
                self._engine, self._processor, self._canary, self._device, self._views
            )

    # -- the best version

    def _keep(self, step: int, version: int) -> None:
        """Write a snapshot of the present weights, whose version is `version`."""
        state = to_state(Position(), version, Lineage(self._spans, self._first))
        self._snapshots.save(version, step, state)

    def _restore(self, order: Restore, step: int, position: Position) -> int:
        """Load a snapshot, and publish its weights as a new version. Return this version.

        Save a checkpoint at once, because the older checkpoints hold the replaced weights.
        """
        self._publisher.wait()
        self._spans = resumed(self._snapshots.load(order.version))[2]
        version = self._attach(step, position)
        # The step may have a checkpoint already, so this one gets another name.
        self._save(step, position, version, f"-v{version:08d}")
        return version

    def _end(self, step: int, position: Position, version: int) -> None:
        """Export the best version, and also the last one if it is not the best. Close the run."""
        if self._tell("last", step, version):
            self._keep(step, version)
        self._publisher.wait()
        chosen: Chosen | None = self._awaited(self._controller.chosen.remote())
        if chosen is None:
            return
        self._exporter.finish(chosen, step, version, self._snapshots, self._config.run.name)
        self._tell("close")


def _agree(value: Any) -> Any:
    """Return rank 0's `value` on every rank. Every rank must call this function."""
    values = [value]
    torch.distributed.broadcast_object_list(values, src=0)
    return values[0]
