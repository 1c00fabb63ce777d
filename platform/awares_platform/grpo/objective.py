"""Computes the GRPO losses of one rank's forward passes (section 3.4 of the paper).

    sequences --collate, one pass ahead--> batch --> logprobs of the current policy --+
                                             |  --> logprobs of the reference policy -+--> loss
    before the first update of a step -------+----> logprobs of the proximal policy --+

The proximal policy is the policy at the start of the step or the behaviour policy, as
grpo.proximal says.

Axes: B episodes, S distinct token sequences among them (S <= B), T tokens.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from awares.batch import Batch
from awares.logprobs import policy_logprobs
from awares.losses import BatchTotals, GrpoSettings, grpo_loss
from awares.tower import SharedTower
from awares_platform.config.grpo import GrpoConfig
from awares_platform.grpo.chosen_loss import policy_loss
from awares_platform.grpo.loss_metrics import LossMetrics
from awares_platform.grpo.shard import Minibatch, StepShard, TrainSequence
from awares_platform.training import lora
from awares_platform.training.ahead import one_ahead


class Objective:
    """Computes the losses of the policy that a DeepSpeed `engine` trains, on one of `ranks` ranks.

    `frozen` is a copy of the starting policy, or None. Policy and `frozen` share the vision tower's
    features through `tower`.
    """

    def __init__(
        self,
        engine: Any,
        frozen: Any,
        collate: Callable[[tuple[TrainSequence, ...]], Batch],
        settings: GrpoConfig,
        ranks: int,
        *,
        tower: SharedTower,
        blocked_ids: Sequence[int],
        packed: bool,
    ) -> None:
        self._engine, self._frozen, self._collate = engine, frozen, collate
        self._temperature, self._ranks = settings.temperature, ranks
        self._tower, self._blocked_ids, self._packed = tower, blocked_ids, packed
        self._scores_proximal = settings.scores_proximal
        self._coupled = settings.proximal == "behaviour"
        self._loss = GrpoSettings(
            policy_loss(settings), settings.kl_beta, settings.importance, settings.importance_cap
        )

    def proximal(self, shard: StepShard) -> list[list[Tensor]] | None:
        """Return the logprobs of every pass of every minibatch under the proximal policy.

        Return None if no extra forward pass is needed. Call this method before the step's first
        update.
        """
        if not self._scores_proximal:
            return None
        with torch.no_grad():
            return [
                [self._logprobs(batch) for batch in one_ahead(self._collate, minibatch.passes)]
                for minibatch in shard.minibatches
            ]

    def losses(
        self, minibatch: Minibatch, proximal: list[Tensor] | None, metrics: LossMetrics
    ) -> Iterator[Tensor]:
        """Yield the loss of each pass, multiplied by the number of ranks.

        The factor turns the mean of the gradients over all ranks into their sum. The gradient is
        NaN if a logprob or the loss is not finite, so that DeepSpeed skips the step on all ranks.
        """
        batches = one_ahead(self._collate, minibatch.passes)
        totals = BatchTotals(minibatch.total, minibatch.tokens)
        for index, (sequences, batch) in enumerate(zip(minibatch.passes, batches, strict=True)):
            with self._tower.batch(batch):
                started_ST = self._reference(batch)
                logprobs_ST = self._logprobs(batch)
            held_ST = logprobs_ST.detach()
            rows_B, behaviour_BT, advantages_B = spread(sequences, batch)
            proximal_ST = held_ST if proximal is None else proximal[index]
            reference_ST = held_ST if started_ST is None else started_ST
            loss, stats = grpo_loss(
                logprobs_ST[rows_B],
                behaviour_BT,
                behaviour_BT if self._coupled else proximal_ST[rows_B],
                reference_ST[rows_B],
                advantages_B,
                batch.action_mask_BT[rows_B],
                self._loss,
                totals=totals,
            )
            if not loss.isfinite():
                metrics.fault = fault(sequences, held_ST, proximal_ST, reference_ST)
            filler = sequences[0].filler
            if not filler:
                metrics.add(stats)
            yield loss * (0.0 if filler else float(self._ranks))

    def _logprobs(self, batch: Batch) -> Tensor:
        return policy_logprobs(
            self._engine,
            batch,
            temperature=self._temperature,
            blocked_ids=self._blocked_ids,
            packed=self._packed,
        )

    def _reference(self, batch: Batch) -> Tensor | None:
        """Return the logprobs of the starting policy, or None if the loss has no KL term.

        With LoRA, `lora.reference` makes the trained model itself compute like the starting policy.
        """
        if self._loss.kl_beta == 0:
            return None
        as_started: AbstractContextManager[None] = (
            nullcontext() if self._frozen is not None else lora.reference(self._engine.module)
        )
        model = self._engine if self._frozen is None else self._frozen
        with torch.no_grad(), as_started:
            return policy_logprobs(
                model,
                batch,
                temperature=self._temperature,
                blocked_ids=self._blocked_ids,
                packed=self._packed,
            )


def fault(
    sequences: tuple[TrainSequence, ...], policy_ST: Tensor, proximal_ST: Tensor, start_ST: Tensor
) -> str:
    """Return a text about a logprob that is not finite, or "" if all are finite."""
    named = {
        "policy": policy_ST,
        "proximal policy (grpo.proximal)": proximal_ST,
        "starting policy (grpo.start)": start_ST,
    }
    for name, logprobs_ST in named.items():
        for row in (~logprobs_ST.isfinite()).any(1).nonzero().flatten().tolist():
            sample = sequences[row].episodes[0].sample_id
            return f"a token of {sample} has a logprob under the {name} that is not finite"
    return ""


def spread(sequences: tuple[TrainSequence, ...], batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Return the rows (B,), behaviour logprobs (B, T) and advantages (B,) of B episodes.

    The row of an episode is the index of its sequence among the S distinct sequences.
    """
    device = batch.input_ids_BT.device
    counts_S = torch.tensor([len(item.episodes) for item in sequences])
    rows_B = torch.repeat_interleave(torch.arange(len(sequences)), counts_S).to(device)
    sampled = [
        logprob
        for item in sequences
        for episode in item.episodes
        for turn in episode.turns
        for logprob in turn.logprobs
    ]
    behaviour_BT = torch.zeros(rows_B.shape[0], batch.input_ids_BT.shape[1], device=device)
    # The mask and `sampled` have the same order: by row, then by token.
    behaviour_BT[batch.action_mask_BT[rows_B]] = torch.tensor(sampled, device=device)
    advantages_B = torch.tensor(
        [advantage for item in sequences for advantage in item.advantages], device=device
    )
    return rows_B, behaviour_BT, advantages_B
