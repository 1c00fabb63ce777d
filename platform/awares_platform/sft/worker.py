"""Runs one rank of the SFT job, as a worker of Ray Train.

    restore -> [ micro-batches -> forward, backward -> step -> (validate) -> (checkpoint) ] x steps
                      ^                                                                -> export
                      +-- a second thread reads and collates one micro-batch ahead, across steps

Validations and checkpoints follow only some steps. The state with the lowest loss on held-out
demonstrations is saved as a snapshot, and exported at the end.

Every rank derives the samples of a step from the step's number (see order.py). The ranks therefore
exchange no samples. A resumed run finds its place in the data from the number of the next step.

Axes: B sequences, T tokens, V entries of the vocabulary, K target tokens in all B sequences.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import islice
from typing import Any

import ray.train
import ray.train.torch
import torch
import torch.distributed
from torch import Tensor

from awares.batch import Batch
from awares.chat import ChatFormat
from awares.errors import DataError
from awares.logprobs import chosen_logprobs, sampled_logits
from awares.losses import sft_loss
from awares.passes import Indices, PassBudget
from awares.sample import Sample
from awares.tokens import Size
from awares_platform.config import PlatformConfig
from awares_platform.data.dataset import Images, read_split
from awares_platform.data.held_out import divide
from awares_platform.method.environment import system_prompt, vision_limits
from awares_platform.method.family import model_family
from awares_platform.runtime.job_lease import LeaseClaim, require_held
from awares_platform.sft.best import BestStep
from awares_platform.sft.examples import Collator, Examples, prepare
from awares_platform.sft.order import SampleOrder, micro_batches
from awares_platform.sft.schedule import cosine
from awares_platform.sft.validating import figures, forced, of_all_ranks
from awares_platform.store import ObjectStore
from awares_platform.training import checkpoint, lora, zero
from awares_platform.training.ahead import one_ahead
from awares_platform.training.export import export_adapter, export_policy
from awares_platform.training.failure import SkippedSteps
from awares_platform.training.policy import load_policy, load_processor
from awares_platform.training.pulse import Pulse
from awares_platform.training.recipe import sft_job
from awares_platform.training.snapshot import Snapshots
from awares_platform.training.source import resolve

_Pass = tuple[Batch, Tensor, int]
"""A micro-batch, its mask of requests, and the number of its unreadable images (Collator)."""


def train(loop: dict[str, Any]) -> None:
    """Run one rank, as Ray Train's train_loop_per_worker. `loop` holds:

    - "config": PlatformConfig as JSON
    - "messages": a Ray queue to the driver
    - "sizes": the (width, height) of each image, by its hash
    - "recipe": a recipe of training/recipe.py
    - "claim": a LeaseClaim

    Raises PolicyError if the checkpoint has another recipe, and JobFenced if the lease is lost.
    """
    config = PlatformConfig.model_validate_json(loop["config"])
    torch.set_num_threads(config.sft.threads)
    torch.manual_seed(config.run.seed)
    SftWorker(config, loop["messages"], loop["recipe"], loop["sizes"], loop["claim"]).run()


class SftWorker:
    """One rank of the SFT job: its model, its optimizer and its share of the samples."""

    def __init__(
        self,
        config: PlatformConfig,
        messages: Any,
        recipe: dict[str, Any],
        sizes: dict[str, Size],
        claim: LeaseClaim,
    ) -> None:
        settings, method = config.sft, config.method
        self._run, self._settings, self._method = config.run.name, settings, method
        self._messages, self._recipe, self._claim = messages, recipe, claim
        context = ray.train.get_context()
        self._rank, self._workers = context.get_world_rank(), context.get_world_size()
        self._store = ObjectStore.from_config(config.store)
        require_held(self._store, claim)
        self._family = family = model_family(config.policy)
        self._source = resolve(self._store, self._run, "base", config.policy.base, family)
        processor = load_processor(self._source, family, method.min_pixels, method.max_pixels)
        chat = ChatFormat(processor.tokenizer, system_prompt(method), family.chat)
        images = Images.of(self._store, config.data)
        limits, weight = vision_limits(method, family), settings.tool_turn_weight
        self._collate = Collator(images, processor, chat, method, limits, weight)
        split = read_split(self._store, config.data.curated, "train")
        self._faults = len(split.faults)
        trained, held_out = divide(split.samples, config.data.held_out)
        self._examples = prepare(trained, sizes, chat, method, limits, weight)
        self._held_out: Examples | None = None
        if held_out and settings.validate_every:
            self._held_out = prepare(held_out, sizes, chat, method, limits, weight)
        count = len(self._examples.samples)
        self._order = SampleOrder(count, settings.batch_size, settings.epochs, config.run.seed)
        self._budget = PassBudget(settings.micro_batch, settings.micro_tokens, config.policy.packed)
        gpu = settings.use_gpu
        self._device = ray.train.torch.get_device() if gpu else torch.device("cpu")
        model = load_policy(
            self._source,
            config.policy,
            config.run.seed,
            partitioned=settings.zero_stage == 3,
            gpu=gpu,
        ).to(self._device)
        zero_settings = zero.settings_of(settings, config.policy.dtype)
        self._engine = zero.initialize(model, zero_settings, gpu)
        job = sft_job(recipe)
        self._snapshots = Snapshots(self._engine, self._store, self._run, job, recipe)
        self._best = BestStep(self._store, self._run, job, self._snapshots, self._rank)
        self._skipped = SkippedSteps(settings.max_skipped_steps, "sft")
        self._pulse = Pulse(config.run.hang_timeout_s)

    def run(self) -> None:
        """Train for the remaining steps, with validations and checkpoints, and export a policy."""
        steps, examples = self._order.steps, self._examples
        saved = checkpoint.restore(self._engine, self._recipe)
        step = saved.step if saved else 0
        self._best.resume(saved, steps)
        skipped = examples.skipped + self._faults
        self._tell("start", step, steps, len(examples.samples), skipped)
        due = checkpoint.Due(self._settings.checkpoint_every, steps)
        with closing(one_ahead(self._prepare, self._passes(step))) as prepared:
            while step < steps:
                metrics = self._step(step, prepared)
                step += 1
                if step % (self._settings.validate_every or steps) == 0 or step == steps:
                    metrics |= self._validate(step)
                self._tell("step", step, metrics)
                if due(step):
                    checkpoint.save(self._engine, step, self._recipe, self._best.state())
        self._export(step)

    def _tell(self, *message: Any) -> None:
        if self._rank == 0:
            self._messages.put(message)

    def _passes(self, first: int) -> Iterator[Indices]:
        """Yield the micro-batches of this rank, from step `first` to the last step."""
        for step in range(first, self._order.steps):
            yield from self._share(step)

    def _share(self, step: int) -> list[Indices]:
        """Return the micro-batches of this rank in a step."""
        batch, lengths = self._order.batch(step), self._examples.lengths
        return micro_batches(batch, lengths, self._budget, self._workers)[self._rank]

    def _step(self, step: int, prepared: Iterator[_Pass]) -> dict[str, float]:
        """Take one optimizer step on this rank's share of a batch. Return metrics of all ranks.

        The next values that `prepared` yields are the micro-batches of this share.
        """
        started = time.monotonic()
        settings, weights = self._settings, self._examples.weights
        total = sum(weights[index] for index in self._order.batch(step))
        rate = cosine(step, self._order.steps, settings.learning_rate, settings.warmup_ratio)
        counts = _Counts(self._device)
        share = counts.timed(islice(prepared, len(self._share(step))))
        losses = self._pulse.beats(self._losses(share, total, counts))
        with self._pulse.step():
            taken = zero.step(self._engine, losses, rate)
        self._skipped.count(step, taken.taken)
        metrics = counts.reduced()
        seconds = time.monotonic() - started
        pace = {
            "time/step": seconds,
            "time/images": counts.images_s,
            "time/tokens_per_s": metrics.pop("tokens") / seconds,
        }
        return {**metrics, "policy/learning_rate": rate, "policy/grad_norm": taken.norm, **pace}

    def _losses(self, share: Iterator[_Pass], total: float, counts: "_Counts") -> Iterator[Tensor]:
        """Yield the loss of each micro-batch in this rank's `share` of a step.

        `total` is the sum of the weights of the whole batch. `zero.step` averages over ranks, so
        each loss is multiplied by the number of ranks.
        """
        for batch, tool_BT, unreadable in share:
            rows_K, positions_K, logits_KV = sampled_logits(
                self._engine, batch, packed=self._budget.packed
            )
            places = (rows_K, positions_K)
            ids_K, weights_K = batch.input_ids_BT[places], batch.weights_BT[places]
            correct = ((logits_KV.argmax(1) == ids_K) & (weights_K > 0)).sum()
            logprobs_K = chosen_logprobs(logits_KV, ids_K)
            del logits_KV  # Otherwise this generator keeps the logits during the backward pass.
            logprobs_BT = torch.zeros_like(batch.weights_BT).index_put(places, logprobs_K)
            counts.add(logprobs_BT.detach(), batch, tool_BT, correct, total)
            counts.unreadable += unreadable
            yield sft_loss(logprobs_BT, batch.weights_BT, normaliser=total) * self._workers

    def _prepare(self, indices: Indices) -> _Pass:
        return self._prepared([self._examples.samples[index] for index in indices])

    def _prepared(self, samples: Sequence[Sample]) -> _Pass:
        batch, tool_BT, unreadable = self._collate(samples)
        return batch.to(self._device), tool_BT.to(self._device), unreadable

    def _validate(self, step: int) -> dict[str, float]:
        """Validate the policy after `step` steps, and return the metrics.

        Return no metrics if nothing is held out.
        """
        results = list(forced(self._engine, self._held_out_passes(), self._budget.packed))
        found = figures(of_all_ranks(results))
        if found:
            self._best.offer(step, found)
        return found

    def _held_out_passes(self) -> Iterator[tuple[Batch, Tensor]]:
        """Yield this rank's share of the held-out demonstrations."""
        examples = self._held_out
        if examples is None or len(examples.samples) < self._workers:
            return
        every = range(len(examples.samples))
        share = micro_batches(every, examples.lengths, self._budget, self._workers)[self._rank]
        for indices in share:
            batch, tool_BT, _ = self._prepared([examples.samples[index] for index in indices])
            yield batch, tool_BT

    def _export(self, step: int) -> None:
        """Export the best policy, or the last one if none was validated. Delete the snapshots.

        A LoRA run exports the merged weights and also the adapter.
        """
        self._snapshots.wait()
        torch.distributed.barrier()  # All ranks have uploaded their parts of the snapshots.
        meta: dict[str, Any] = {"recipe": self._recipe, "step": step}
        if best := self._best.found:
            meta["best"] = {"step": best.step, "held_out": best.figures}
            if best.step != step:
                self._snapshots.load(best.step)
        state, adapter = zero.full_state(self._engine), zero.full_adapter(self._engine)
        scale = lora.scale(self._engine.module)
        if self._rank == 0:
            require_held(self._store, self._claim)
            named = (self._store, self._run, "sft", self._family, self._method, meta)
            key = export_policy(state, self._source, *named, adapter=scale is not None)
            if scale is not None:
                export_adapter(adapter, scale, self._source, "base", *named)
            self._messages.put(("exported", key))
            self._best.forget()
        torch.distributed.barrier()


class _Counts:
    """Sums the loss and the token counts of a step, over micro-batches and then over ranks.

    `unreadable` counts this rank's unreadable samples. `images_s` is the time for which this rank
    has waited for micro-batches, in seconds.
    """

    def __init__(self, device: torch.device) -> None:
        # Six sums: the loss, the negative logprobs of request tokens, and the numbers of request
        # tokens, of correct target tokens, of target tokens, and of all tokens.
        self.unreadable = 0
        self.images_s = 0.0
        self._sums = torch.zeros(6, dtype=torch.float64, device=device)

    def timed(self, share: Iterator[_Pass]) -> Iterator[_Pass]:
        """Yield the micro-batches of a share, and add the waiting time for each to `images_s`."""
        asked = time.monotonic()
        for one in share:
            self.images_s += time.monotonic() - asked
            yield one
            asked = time.monotonic()

    def add(
        self, logprobs_BT: Tensor, batch: Batch, tool_BT: Tensor, correct: Tensor, total: float
    ) -> None:
        """Add the loss and the token counts of a micro-batch.

        `total` is the sum of the weights of the whole batch.
        """
        loss = sft_loss(logprobs_BT, batch.weights_BT, normaliser=total)
        tool = -logprobs_BT[tool_BT].sum()
        targets = (batch.weights_BT > 0).sum()
        tokens = batch.attention_mask_BT.sum()
        counted = [loss, tool, tool_BT.sum(), correct, targets, tokens]
        self._sums += torch.stack(counted).double()

    def reduced(self) -> dict[str, float]:
        """Return the step's metrics over all ranks.

        Without a crop request in the step, the result has no "loss/tool_turn". Raises DataError if
        no image of the step's batch is readable.
        """
        sums = torch.cat([self._sums, self._sums.new_tensor([self.unreadable])])
        torch.distributed.all_reduce(sums)
        loss, tool, requests, correct, targets, tokens, left_out = sums.tolist()
        if not targets:
            raise DataError(
                f"none of the {left_out:.0f} images of a batch is readable; check images/ in the "
                "store, then run sft again"
            )
        metrics = {
            "loss/sft": loss,
            "accuracy/tokens": correct / targets,
            "tokens": tokens,
            "data/unreadable": left_out,
        }
        return {**metrics, "loss/tool_turn": tool / requests} if requests else metrics
