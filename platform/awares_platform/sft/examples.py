"""Prepares curated samples as training examples, and collates them into micro-batches."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from awares.batch import Batch, collate, sequence_length
from awares.chat import ChatFormat
from awares.demonstration import Demonstration, demonstration
from awares.errors import DataError
from awares.sample import Sample
from awares.tokens import Size, VisionLimits
from awares_platform.config.method import MethodConfig
from awares_platform.method.environment import environment

log = logging.getLogger(__name__)

_BLANK_SIZE = (56, 56)
# Replaces the unknown size of an image. A small image may get one view instead of several crops, so
# only a large size makes the computed length of a sequence an upper bound.
_LARGEST_SIZE = (4096, 4096)
_REPORTED = 5


@dataclass(frozen=True, slots=True)
class Examples:
    """The usable samples, with the length and the weight of each sample.

    Example:
        Examples(samples=(sample,), lengths=(61,), weights=(7.0,), skipped=0)
    """

    samples: tuple[Sample, ...]
    lengths: tuple[int, ...]
    """Number of tokens of each sample's sequence, or an upper bound if the image's size is unknown.
    """
    weights: tuple[float, ...]
    """Sum of the weights of each sample's target tokens."""
    skipped: int
    """Number of unusable samples."""


def prepare(
    samples: Sequence[Sample],
    sizes: Mapping[str, Size],
    chat: ChatFormat,
    method: MethodConfig,
    limits: VisionLimits,
    tool_weight: float,
) -> Examples:
    """Keep the samples from which a demonstration can be built, and count the other samples.

    `sizes` maps an image's hash to its size. Unknown sizes count as large. `tool_weight` is the
    weight of a target token in a request for crops.

    Raises DataError if no sample is left.
    """
    kept: list[Sample] = []
    lengths: list[int] = []
    weights: list[float] = []
    faults: list[str] = []
    offered = environment(method)
    for sample in samples:
        size = sizes.get(sample.image)
        try:
            item = demonstration(sample, chat, size or _LARGEST_SIZE, offered)
        except DataError as error:
            faults.append(str(error))
            continue
        kept.append(sample)
        lengths.append(
            sequence_length(item, limits, method.low_ratio) if size else _bound(item, limits)
        )
        weights.append(
            sum(len(turn.sampled_ids) * (tool_weight if turn.crops else 1.0) for turn in item.turns)
        )
    for fault in faults[:_REPORTED]:
        log.warning("skipped: %s", fault)
    if not kept:
        raise DataError(
            f"none of {len(samples)} curated samples can be trained on; "
            f"the first says: {faults[0] if faults else 'no rows'}"
        )
    return Examples(tuple(kept), tuple(lengths), tuple(weights), len(faults))


def _bound(item: Demonstration, limits: VisionLimits) -> int:
    """Return an upper bound of the length of a demonstration whose image has an unknown size."""
    written = sum(len(turn.context_ids) + len(turn.sampled_ids) for turn in item.turns)
    views = sum(len(turn.views) for turn in item.turns)
    return written + views * (limits.max_pixels // limits.unit**2 - 1)


class Collator:
    """Reads the images of samples, and collates the samples' demonstrations into micro-batches.

    The collator leaves out samples with unreadable images, and counts them.
    """

    def __init__(
        self,
        images: Callable[[str], Image.Image],
        processor: Any,
        chat: ChatFormat,
        method: MethodConfig,
        limits: VisionLimits,
        tool_weight: float,
    ) -> None:
        self._images, self._processor, self._chat = images, processor, chat
        self._method, self._tool_weight = method, tool_weight
        self._environment, self._limits = environment(method), limits

    def __call__(self, samples: Sequence[Sample]) -> tuple[Batch, Tensor, int]:
        """Return the batch, its request mask, and the number of samples with unreadable images.

        The mask (B, T) is true at the target tokens of requests for crops.
        """
        items = [item for sample in samples if (item := self._demonstration(sample))]
        unreadable = len(samples) - len(items)
        # A blank demonstration of weight 0 keeps the number of forward passes equal on all ranks.
        if not items:
            return *self._blank(samples[0]), unreadable
        batch = self._collate(items, self._images)
        tool_BT = torch.zeros_like(batch.action_mask_BT)
        tool_BT[batch.action_mask_BT] = torch.tensor(
            [flag for item in items for flag in item.tool_flags]
        )
        return batch, tool_BT, unreadable

    def _blank(self, sample: Sample) -> tuple[Batch, Tensor]:
        item = demonstration(sample, self._chat, _BLANK_SIZE, self._environment)
        batch = self._collate([item], lambda _: Image.new("RGB", _BLANK_SIZE))
        return replace(batch, weights_BT=torch.zeros_like(batch.weights_BT)), torch.zeros_like(
            batch.action_mask_BT
        )

    def _collate(
        self, items: Sequence[Demonstration], images: Callable[[str], Image.Image]
    ) -> Batch:
        return collate(
            items, images, self._processor, self._limits, self._method.low_ratio, self._tool_weight
        )

    def _demonstration(self, sample: Sample) -> Demonstration | None:
        try:
            size = self._images(sample.image).size
            return demonstration(sample, self._chat, size, self._environment)
        except DataError as error:
            log.warning("left out %s: %s", sample.sample_id, error)
            return None
