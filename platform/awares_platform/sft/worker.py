"""The SFT worker: one rank of Ray Train's worker group.

    restore -> [ plan -> micro-batches -> forward, backward -> step -> figures -> (checkpoint) ] x steps -> export

Every rank derives the whole plan from the step number (order.py), so nothing about data travels and resuming needs the step only.

Axes: B sequences, T tokens, K positions where some row has a target, V vocabulary.
"""

import time
from collections.abc import Iterator
from typing import Any

import ray.train
import ray.train.torch
import torch
import torch.distributed
from torch import Tensor

from awares.batch import Batch, policy_logprobs
from awares.chat import ChatFormat
from awares.errors import DataError
from awares.losses import sft_loss
from awares_platform.config import PlatformConfig
from awares_platform.data.dataset import Images, read_split
from awares_platform.method.environment import vision_limits
from awares_platform.sft.examples import Collator, prepare
from awares_platform.sft.order import SampleOrder, micro_batches
from awares_platform.sft.schedule import cosine
from awares_platform.store import ObjectStore
from awares_platform.training import checkpoint, zero
from awares_platform.training.policy import export_policy, load_policy, load_processor, resolve


def tune(loop: dict[str, Any]) -> None:
    """Ray Train's train_loop_per_worker. `loop`: "config", the setup as JSON; "figures", a ray Queue; "recipe", what must not change."""
    config = PlatformConfig.model_validate_json(loop["config"])
    torch.set_num_threads(config.sft.threads)
    torch.manual_seed(config.run.seed)
    Tuner(config, loop["figures"], loop["recipe"]).run()


class Tuner:
    """The state of one rank."""

    def __init__(self, config: PlatformConfig, figures: Any, recipe: dict[str, Any]) -> None:
        self._config, self._settings, self._figures, self._recipe = (
            config,
            config.sft,
            figures,
            recipe,
        )
        context = ray.train.get_context()
        self._rank, self._workers = context.get_world_rank(), context.get_world_size()
        self._store = ObjectStore.from_config(config.store)
        self._source = resolve(config, self._store, "base")
        processor = load_processor(self._source, config)
        chat = ChatFormat(processor.tokenizer, config.method.system_prompt)
        images = Images(self._store, config.data.image_cache)
        self._collate = Collator(
            images, processor, chat, config.method, self._settings.tool_turn_weight
        )
        split = read_split(self._store, f"{config.data.name}-curated", "train")
        self._faults = len(split.faults)
        self._examples = prepare(
            split.samples, chat, vision_limits(config.method), self._settings.tool_turn_weight
        )
        self._order = SampleOrder(
            len(self._examples.samples),
            self._settings.batch_size,
            self._settings.epochs,
            config.run.seed,
        )
        gpu = self._settings.use_gpu
        self._device = ray.train.torch.get_device() if gpu else torch.device("cpu")
        self._engine = zero.initialize(
            load_policy(self._source, config).to(self._device), self._zero_settings(), gpu
        )

    def _zero_settings(self) -> zero.ZeroSettings:
        settings = self._settings
        return zero.ZeroSettings(
            stage=settings.zero_stage,
            dtype=self._config.policy.dtype,
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
            max_grad_norm=settings.max_grad_norm,
        )

    def run(self) -> None:
        """The loop drawn above."""
        settings, steps = self._settings, self._order.steps
        saved = checkpoint.restore(self._engine, self._recipe)
        step = saved.step if saved else 0
        self._tell(
            "start", step, steps, len(self._examples.samples), self._examples.skipped + self._faults
        )
        while step < steps:
            figures = self._step(step)
            step += 1
            self._tell("step", step, figures)
            if step % settings.checkpoint_every == 0 or step == steps:
                checkpoint.save(self._engine, step, self._recipe, {}, figures)
        self._export(step)

    def _tell(self, *message: Any) -> None:
        if self._rank == 0:
            self._figures.put(message)

    def _step(self, step: int) -> dict[str, float]:
        """One optimizer step over this rank's share of the batch. Returns the step's figures over all ranks."""
        started = time.monotonic()
        settings, examples = self._settings, self._examples
        batch = self._order.batch(step)
        mine = micro_batches(batch, examples.lengths, settings.micro_batch, self._workers)[
            self._rank
        ]
        total = sum(examples.weights[index] for index in batch)
        rate = cosine(step, self._order.steps, settings.learning_rate, settings.warmup_ratio)
        counts, before = _Counts(self._device), self._collate.unreadable
        norm = zero.step(self._engine, self._losses(mine, total, counts), rate)
        figures = counts.reduced(self._collate.unreadable - before)
        seconds = time.monotonic() - started
        pace = {"time/step": seconds, "time/tokens_per_s": figures.pop("tokens") / seconds}
        return {**figures, "policy/learning_rate": rate, "policy/grad_norm": norm, **pace}

    def _losses(
        self, mine: list[tuple[int, ...]], total: float, counts: "_Counts"
    ) -> Iterator[Tensor]:
        """The loss of each micro-batch: summed over micro-batches and averaged over ranks, the batch's weighted mean."""
        for indices in mine:
            batch, tool_BT = self._collate([self._examples.samples[index] for index in indices])
            batch, tool_BT = batch.to(self._device), tool_BT.to(self._device)
            model = _Watched(self._engine)
            logprobs_BT = policy_logprobs(model, batch)
            counts.add(logprobs_BT.detach(), batch, tool_BT, model.correct(batch), total)
            yield sft_loss(logprobs_BT, batch.weights_BT, normaliser=total) * self._workers

    def _export(self, step: int) -> None:
        state = zero.full_state(self._engine)
        if self._rank == 0:
            key = export_policy(
                state,
                self._source,
                self._store,
                self._config.run.name,
                "sft",
                {"recipe": self._recipe, "step": step},
            )
            self._figures.put(("exported", key))
        torch.distributed.barrier()


class _Watched:
    """The engine, remembering what it would have said: policy_logprobs keeps no logits."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def __call__(self, *, logits_to_keep: Tensor, **inputs: Any) -> Any:
        output = self._engine(**inputs, logits_to_keep=logits_to_keep)
        self._best_BK, self._kept_K = output.logits.detach().argmax(-1), logits_to_keep
        return output

    def correct(self, batch: Batch) -> Tensor:
        """How many target tokens had the highest probability."""
        after_K = self._kept_K + 1
        return (
            (self._best_BK == batch.input_ids_BT[:, after_K]) & (batch.weights_BT[:, after_K] > 0)
        ).sum()


class _Counts:
    """Sums over the micro-batches of a step, then over the ranks."""

    def __init__(self, device: torch.device) -> None:
        self._sums = torch.zeros(
            6, dtype=torch.float64, device=device
        )  # loss, tool nll, tool tokens, correct, target tokens, tokens

    def add(
        self, logprobs_BT: Tensor, batch: Batch, tool_BT: Tensor, correct: Tensor, total: float
    ) -> None:
        """Count a micro-batch; `total` is the weight of the whole batch."""
        loss = sft_loss(logprobs_BT, batch.weights_BT, normaliser=total)
        tool = -logprobs_BT[tool_BT].sum()
        targets = (batch.weights_BT > 0).sum()
        self._sums += torch.stack(
            [loss, tool, tool_BT.sum(), correct, targets, batch.attention_mask_BT.sum()]
        ).double()

    def reduced(self, unreadable: int) -> dict[str, float]:
        """Figures over all ranks, with the samples that were left out as `unreadable`; a step without a crop request has no tool-turn loss.

        Raises DataError if nothing of the batch was readable: one bad image is left out, but not all of them in silence.
        """
        sums = torch.cat([self._sums, self._sums.new_tensor([unreadable])])
        torch.distributed.all_reduce(sums)
        loss, tool, requests, correct, targets, tokens, left_out = sums.tolist()
        if not targets:
            raise DataError(
                f"none of the {left_out:.0f} images of a batch is readable; check images/ in the store, then run sft again"
            )
        figures = {
            "loss/sft": loss,
            "accuracy/tokens": correct / targets,
            "tokens": tokens,
            "data/unreadable": left_out,
        }
        return {**figures, "loss/tool_turn": tool / requests} if requests else figures
