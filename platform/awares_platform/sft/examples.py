"""Curated samples as training examples: which can be used, how long and how heavy each is, and micro-batches of them."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from awares.batch import Batch, collate, sequence_length
from awares.chat import ChatFormat
from awares.errors import DataError
from awares.sample import Sample
from awares.tokens import VisionLimits
from awares.trajectory import Trajectory, trajectory
from awares_platform.config.method import MethodConfig
from awares_platform.method.environment import vision_limits

log = logging.getLogger(__name__)

_NOMINAL_SIZE = (
    1024,
    768,
)  # lengths only order a batch's samples, so no image need be read for them
_BLANK_SIZE = (56, 56)
_REPORTED = 5


@dataclass(frozen=True, slots=True)
class Examples:
    """Usable samples, aligned with their approximate `lengths` in tokens and with the sums of their target tokens' `weights`.

    Example:
        Examples(samples=(sample,), lengths=(61,), weights=(7.0,), skipped=0)
    """

    samples: tuple[Sample, ...]
    lengths: tuple[int, ...]
    weights: tuple[float, ...]
    skipped: int


def prepare(
    samples: Sequence[Sample], chat: ChatFormat, limits: VisionLimits, tool_weight: float
) -> Examples:
    """Keep the samples that make a trajectory; the others are counted and reported. Raises DataError if none is left."""
    kept: list[Sample] = []
    lengths: list[int] = []
    weights: list[float] = []
    faults: list[str] = []
    for sample in samples:
        try:
            item = trajectory(sample, chat, _NOMINAL_SIZE)
        except DataError as error:
            faults.append(str(error))
            continue
        kept.append(sample)
        lengths.append(sequence_length(item, limits))
        weights.append(
            sum(len(turn.sampled_ids) * (tool_weight if turn.crops else 1.0) for turn in item.turns)
        )
    for fault in faults[:_REPORTED]:
        log.warning("skipped: %s", fault)
    if not kept:
        raise DataError(
            f"none of {len(samples)} curated samples can be trained on; the first says: {faults[0] if faults else 'no rows'}"
        )
    return Examples(tuple(kept), tuple(lengths), tuple(weights), len(faults))


class Collator:
    """Makes micro-batches: reads images, builds trajectories, renders and collates them. Unreadable images are counted and left out."""

    def __init__(
        self,
        images: Callable[[str], Image.Image],
        processor: Any,
        chat: ChatFormat,
        method: MethodConfig,
        tool_weight: float,
    ) -> None:
        self._images, self._processor, self._chat, self._method, self._tool_weight = (
            images,
            processor,
            chat,
            method,
            tool_weight,
        )
        self._limits = vision_limits(method)
        self.unreadable = 0

    def __call__(self, samples: Sequence[Sample]) -> tuple[Batch, Tensor]:
        """The batch, and a (B, T) mask of the target tokens that belong to crop requests.

        Where no image is readable, a blank one stands in without weight: ranks must make equally many passes.
        """
        items = [item for sample in samples if (item := self._trajectory(sample))]
        if not items:
            return self._blank(samples[0])
        batch = self._collate(items, self._images)
        tool_BT = torch.zeros_like(batch.action_mask_BT)
        tool_BT[batch.action_mask_BT] = torch.tensor(
            [flag for item in items for flag in item.tool_flags]
        )
        return batch, tool_BT

    def _blank(self, sample: Sample) -> tuple[Batch, Tensor]:
        item = trajectory(sample, self._chat, _BLANK_SIZE)
        batch = self._collate([item], lambda _: Image.new("RGB", _BLANK_SIZE))
        return replace(batch, weights_BT=torch.zeros_like(batch.weights_BT)), torch.zeros_like(
            batch.action_mask_BT
        )

    def _collate(self, items: Sequence[Trajectory], images: Callable[[str], Image.Image]) -> Batch:
        return collate(
            items, images, self._processor, self._limits, self._method.low_ratio, self._tool_weight
        )

    def _trajectory(self, sample: Sample) -> Trajectory | None:
        try:
            return trajectory(sample, self._chat, self._images(sample.image).size)
        except DataError as error:
            self.unreadable += 1
            log.warning("left out %s: %s", sample.sample_id, error)
            return None
