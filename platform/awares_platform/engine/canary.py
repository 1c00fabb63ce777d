"""Verifies a loaded weight version with a canary: the logprobs of fixed prompts.

This file builds the prompts and compares their logprobs. `canary_samples.py` chooses the samples
for the prompts.

    learner: learner_logprobs(published weights) ------------> manifest.extra["canary"]
    engine:  Engine.load_version scores the same prompts ----> check

Checksums cannot prove that the engine computes with the weights that the learner published: a
fused, prepacked or tied tensor can be wrong although its download has the right hash. Two checks
compare the engine with the learner:

    level    The logprobs of engine and learner differ little on average.
    change   The engine's logprobs have changed since version 0 in the same way as the learner's.

The level check cannot see an update that is smaller than the rounding errors of 16 bits. The change
check (canary_change.py) can see such updates, because rounding errors average out over the tokens.

Each prompt has two turns with one image each. The canary thus covers the vision tower and the
positions of several images. Both checks compare the raw logprobs (temperature 1, no mask) of every
text token after the first image.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from PIL.Image import Image

from awares.batch import collate, sequence_length
from awares.chat import ChatFormat
from awares.crops import CropId
from awares.demonstration import Demonstration, demonstration
from awares.errors import DataError
from awares.images import render
from awares.logprobs import policy_logprobs
from awares.pixels import Remember
from awares.sample import Label, Sample
from awares.tokens import Size, VisionLimits
from awares_platform.weights.manifest import Manifest, WeightsError, digest

Logprobs = tuple[tuple[float, ...], ...]
"""One row of logprobs per prompt, with one value per text token after the first image."""

_CROPS = (CropId.TOP_LEFT, CropId.CENTER, CropId.BOTTOM, CropId.RIGHT)


class CanaryMismatch(WeightsError):
    """The canary's logprobs, or their changes, differ too much between engine and learner."""


@dataclass(frozen=True)
class Canary:
    """A fixed set of two-turn sequences with their original images.

    Example:
        canary = Canary.build(samples[:4], images, chat, limits, low_ratio=0.5)
    """

    items: tuple[Demonstration, ...]
    """The sequences."""
    originals: Mapping[str, Image]
    """Maps a content hash to the original image."""
    image_token_id: int
    limits: VisionLimits
    """The pixel limits of the policy."""
    low_ratio: float
    """The factor method.low_ratio, by which the first image of each item is scaled down."""

    @classmethod
    def build(
        cls,
        samples: Iterable[Sample],
        images: Callable[[str], Image],
        chat: ChatFormat,
        limits: VisionLimits,
        low_ratio: float = 0.5,
    ) -> "Canary":
        """Build a canary with one item per sample.

        `images` maps a content hash to the original image. An item consists of the scaled-down
        image, the question, a request for one crop, the crop, and the sample's answer.
        """
        samples = tuple(samples)
        originals = {sample.image: images(sample.image) for sample in samples}
        items = []
        for index, sample in enumerate(samples):
            asked = replace(sample, label=Label.HR, crops=(_CROPS[index % len(_CROPS)],))
            items.append(demonstration(asked, chat, originals[sample.image].size))
        return cls(tuple(items), originals, chat.image_token_id, limits, low_ratio)

    @cached_property
    def prompts(self) -> list[tuple[tuple[int, ...], tuple[Image, ...]]]:
        """The token ids and the images of each item, as the policy sees them.

        The ids contain one placeholder per image.
        """
        return [(_ids(item), self._views(item)) for item in self.items]

    def compared(self) -> list[int]:
        """Return the number of compared tokens of each item.

        An item's compared tokens are all text tokens after its first image.
        """
        after = [ids[ids.index(self.image_token_id) :] for ids in map(_ids, self.items)]
        return [sum(token != self.image_token_id for token in ids) for ids in after]

    @cached_property
    def digest(self) -> str:
        """A hash of the token ids, pixels and limits.

        Learner and engine score the same prompts if their canaries have the same digest.
        """
        ids = json.dumps(
            [[_ids(item) for item in self.items], self.limits.min_pixels, self.limits.max_pixels]
        )
        pixels = b"".join(view.tobytes() for _, views in self.prompts for view in views)
        return digest(ids.encode() + pixels)

    def _views(self, item: Demonstration) -> tuple[Image, ...]:
        return tuple(
            render(self.originals[item.image], view, self.low_ratio)
            for turn in item.turns
            for view in turn.views
        )


def check_fit(
    sample: Sample,
    size: Size,
    chat: ChatFormat,
    limits: VisionLimits,
    low_ratio: float,
    context: int,
) -> None:
    """Raise DataError if no canary item can be built from `sample`, or if the item is too long.

    `size` is the image's width and height in pixels. `context` is the engine's limit in tokens.
    """
    for crop in _CROPS:
        asked = replace(sample, label=Label.HR, crops=(crop,))
        length = sequence_length(demonstration(asked, chat, size), limits, low_ratio)
        if length >= context:
            raise DataError(
                f"{sample.sample_id} needs {length + 1} tokens of {context} "
                "(engine.max_model_len); shorten the question"
            )


def _ids(item: Demonstration) -> tuple[int, ...]:
    return tuple(token for turn in item.turns for token in (*turn.context_ids, *turn.sampled_ids))


@torch.no_grad()
def learner_logprobs(
    model: Callable[..., Any],
    processor: Any,
    canary: Canary,
    device: torch.device | str = "cpu",
    remember: Remember | None = None,
) -> Logprobs:
    """Return the learner's logprobs of the compared tokens.

    `model` must have the published weights in their published precision. Under ZeRO-3 every rank
    must call this function. `remember` caches processed images.
    """
    rows = []
    for item, count in zip(canary.items, canary.compared(), strict=True):
        batch = collate(
            (item,),
            canary.originals.__getitem__,
            processor,
            canary.limits,
            canary.low_ratio,
            remember=remember,
        )
        compared_BT = torch.zeros_like(batch.attention_mask_BT, dtype=torch.bool)
        text_N = (batch.input_ids_BT[0] != canary.image_token_id).nonzero().squeeze(1)
        compared_BT[0, text_N[-count:]] = True
        batch = replace(batch, action_mask_BT=compared_BT)
        rows.append(policy_logprobs(model, batch.to(device)).cpu()[compared_BT].tolist())
    return tuple(map(tuple, rows))


def tails(rows: Iterable[Sequence[float]], canary: Canary) -> Logprobs:
    """Return the logprobs of the text tokens after each item's first image.

    A row of `rows` holds the logprobs of all text tokens of one item.
    """
    return tuple(tuple(row[-count:]) for row, count in zip(rows, canary.compared(), strict=True))


def to_extra(canary: Canary, logprobs: Logprobs, start: Logprobs | None = None) -> dict[str, Any]:
    """Return the value of the key "canary" in a manifest's `extra`.

    `start` holds the learner's logprobs of version 0. Without `start`, engines do not check the
    change since version 0.
    """
    rows = {"digest": canary.digest, "logprobs": [list(row) for row in logprobs]}
    return rows if start is None else {**rows, "start": [list(row) for row in start]}


def expected(canary: Canary, manifest: Manifest) -> Logprobs:
    """Return the learner's logprobs from `manifest`.

    Raises WeightsError if the manifest holds no logprobs, or logprobs of other prompts.
    """
    published = manifest.extra.get("canary")
    if published is None:
        raise WeightsError(
            f"version {manifest.version} carries no canary; "
            "publish it with extra={'canary': canary.to_extra(...)}"
        )
    if published["digest"] != canary.digest:
        raise WeightsError(
            f"version {manifest.version}: learner and engine built their canaries from different "
            "samples, images or limits"
        )
    return tuple(map(tuple, published["logprobs"]))


def start_of(canary: Canary, manifest: Manifest) -> Logprobs | None:
    """Return the learner's logprobs of version 0, or None if `manifest` holds none.

    Raises WeightsError in the same cases as `expected`.
    """
    expected(canary, manifest)
    rows = manifest.extra["canary"].get("start")
    return None if rows is None else tuple(map(tuple, rows))


def check(canary: Canary, manifest: Manifest, measured: Logprobs, bound: float) -> float:
    """Return the mean absolute difference between the learner's and the engine's logprobs.

    The learner's logprobs are in `manifest`; the engine's are `measured`. Raises CanaryMismatch if
    the mean exceeds `bound` or is NaN. Raises WeightsError in the same cases as `expected`.
    """
    pairs = [
        pair
        for rows in zip(expected(canary, manifest), measured, strict=True)
        for pair in zip(*rows, strict=True)
    ]
    mean = math.fsum(abs(learned - computed) for learned, computed in pairs) / len(pairs)
    # A mean of NaN must fail the check. `mean > bound` would be false for NaN.
    if not mean <= bound:
        raise CanaryMismatch(
            f"version {manifest.version}: mean |dlogp| between learner and engine is {mean:.4g} "
            f"over {len(pairs)} tokens, above the bound {bound:.4g} (engine.canary_bound): the "
            "engine does not compute with the weights that were published. Restart the engine; if "
            "it happens again, a tensor is loaded wrongly"
        )
    return mean
