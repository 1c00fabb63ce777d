"""Prepares curated samples as training examples, and collates them into micro-batches."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from awares.batch import Batch, collate, sequence_length
from awares.chat import ChatFormat
from awares.demonstration import Demonstration, demonstration
from awares.environment import Environment
from awares.errors import DataError
from awares.sample import Sample
from awares.tokens import VisionLimits
from awares_platform.config.method import MethodConfig
from awares_platform.method.environment import environment

log = logging.getLogger(__name__)

# The lengths of samples only decide how a batch is cut into micro-batches. Rough lengths suffice
# for this, so `prepare` assumes this size for every image.
_NOMINAL_SIZE = (1024, 768)
_BLANK_SIZE = (56, 56)
_REPORTED = 5


@dataclass(frozen=True, slots=True)
class Examples:
    """The usable samples, with the approximate length and the weight of each sample.

    `lengths` and `weights` have the order of `samples`. A length is in tokens. A sample's weight is
    the sum of the weights of its target tokens. `skipped` is the number of unusable samples.

    Example:
        Examples(samples=(sample,), lengths=(61,), weights=(7.0,), skipped=0)
    """

    samples: tuple[Sample, ...]
    lengths: tuple[int, ...]
    weights: tuple[float, ...]
    skipped: int


def prepare(
    samples: Sequence[Sample],
    chat: ChatFormat,
    environment: Environment,
    limits: VisionLimits,
    tool_weight: float,
) -> Examples:
    """Keep the samples that have a demonstration in `environment`. Count the other samples.

    `tool_weight` is the weight of a target token in a request for crops. Every other target token
    has the weight 1. The function logs the first few unusable samples. Raises DataError if no
    sample is left.
    """
    kept: list[Sample] = []
    lengths: list[int] = []
    weights: list[float] = []
    faults: list[str] = []
    for sample in samples:
        try:
            item = demonstration(sample, chat, _NOMINAL_SIZE, environment)
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
            f"none of {len(samples)} curated samples can be trained on; "
            f"the first says: {faults[0] if faults else 'no rows'}"
        )
    return Examples(tuple(kept), tuple(lengths), tuple(weights), len(faults))


class Collator:
    """Reads the images of samples, and collates the samples' demonstrations into micro-batches.

    The collator leaves out samples with unreadable images, and counts them in `unreadable`.
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
        self.unreadable = 0

    def __call__(self, samples: Sequence[Sample]) -> tuple[Batch, Tensor]:
        """Return the batch, and a (B, T) mask of the target tokens in requests for crops.

        If no image is readable, the batch holds one demonstration with a blank image, whose tokens
        have the weight 0. The number of forward passes thus stays the same on all ranks.
        """
        items = [item for sample in samples if (item := self._demonstration(sample))]
        if not items:
            return self._blank(samples[0])
        batch = self._collate(items, self._images)
        tool_BT = torch.zeros_like(batch.action_mask_BT)
        tool_BT[batch.action_mask_BT] = torch.tensor(
            [flag for item in items for flag in item.tool_flags]
        )
        return batch, tool_BT

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
            self.unreadable += 1
            log.warning("left out %s: %s", sample.sample_id, error)
            return None
