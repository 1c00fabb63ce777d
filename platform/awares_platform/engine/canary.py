"""The logprob canary: proof that what an engine loaded is what the learner published.

    learner: `learner_logprobs` with the weights that it publishes --> manifest.extra["canary"]
    engine:  `awares_platform.engine.engine.Engine.load_version` scores the same prompts after every load --> `check`

Checksums cannot prove a load: fused, prepacked or tied tensors can hash right and still compute wrong. The prompts hold two turns with an
image each, so that both the vision tower and the positions of several images take part. Compared are the raw logprobs (temperature 1,
nothing masked) of every text token after the first image.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from PIL.Image import Image

from awares.batch import collate, token_logprobs
from awares.chat import ChatFormat
from awares.crops import CropId
from awares.demonstration import Demonstration, demonstration
from awares.images import render
from awares.sample import Label, Sample
from awares.tokens import VisionLimits
from awares_platform.weights.manifest import Manifest, WeightsError, digest

Logprobs = tuple[tuple[float, ...], ...]
"""Per prompt, per compared token."""

_CROPS = (CropId.TOP_LEFT, CropId.CENTER, CropId.BOTTOM, CropId.RIGHT)


class CanaryMismatch(WeightsError):
    """An engine computes other logprobs than the learner whose weights it loaded."""


@dataclass(frozen=True)
class Canary:
    """A fixed set of two-turn sequences with their original images. Learner and engines build it from the same samples. What every load
    needs of it is made once.

    Example:
        canary = Canary.build(samples[:4], images, chat, limits, low_ratio=0.5)
    """

    items: tuple[Demonstration, ...]
    originals: Mapping[str, Image]
    image_token_id: int
    limits: VisionLimits
    low_ratio: float

    @classmethod
    def build(
        cls,
        samples: Iterable[Sample],
        images: Callable[[str], Image],
        chat: ChatFormat,
        limits: VisionLimits,
        low_ratio: float = 0.5,
    ) -> "Canary":
        """Each sample's question, a request for one crop, the crop, and the sample's answer. `images` gives a hash's original."""
        samples = tuple(samples)
        originals = {sample.image: images(sample.image) for sample in samples}
        items = []
        for index, sample in enumerate(samples):
            asked = replace(sample, label=Label.HR, crops=(_CROPS[index % len(_CROPS)],))
            items.append(demonstration(asked, chat, originals[sample.image].size))
        return cls(tuple(items), originals, chat.image_token_id, limits, low_ratio)

    @cached_property
    def prompts(self) -> list[tuple[tuple[int, ...], tuple[Image, ...]]]:
        """Per item its whole sequence, one placeholder per image, and the images as the policy sees them."""
        return [(_ids(item), self._views(item)) for item in self.items]

    def compared(self) -> list[int]:
        """Per item how many of its text tokens, from the last one back, are compared: those after the first image."""
        after = [ids[ids.index(self.image_token_id) :] for ids in map(_ids, self.items)]
        return [sum(token != self.image_token_id for token in ids) for ids in after]

    @cached_property
    def digest(self) -> str:
        """A hash of ids, pixels and limits: two sides with the same one score the same thing."""
        ids = json.dumps(
            [[_ids(item) for item in self.items], self.limits.min_pixels, self.limits.max_pixels]
        )
        pixels = b"".join(view.tobytes() for item in self.items for view in self._views(item))
        return digest(ids.encode() + pixels)

    def _views(self, item: Demonstration) -> tuple[Image, ...]:
        return tuple(
            render(self.originals[item.image], view, self.low_ratio)
            for turn in item.turns
            for view in turn.views
        )


def _ids(item: Demonstration) -> tuple[int, ...]:
    return tuple(token for turn in item.turns for token in (*turn.context_ids, *turn.sampled_ids))


@torch.no_grad()
def learner_logprobs(
    model: Callable[..., Any], processor: Any, canary: Canary, device: torch.device | str = "cpu"
) -> Logprobs:
    """The learner's logprobs of the compared tokens, by one forward pass of transformers. Under ZeRO-3 every rank must call it.

    `model` must compute with the weights that are published, in the precision that they are published in.
    """
    batch = collate(
        canary.items, canary.originals.__getitem__, processor, canary.limits, canary.low_ratio
    ).to(device)
    logits_BTV = model(**batch.forward_inputs(), use_cache=False).logits
    logprobs_BT = token_logprobs(logits_BTV, batch.input_ids_BT)
    text_BT = batch.attention_mask_BT.bool() & (batch.input_ids_BT != canary.image_token_id)
    rows = [
        logprobs_T[text_T].tolist() for logprobs_T, text_T in zip(logprobs_BT, text_BT, strict=True)
    ]
    return tails(rows, canary)


def tails(rows: Iterable[Sequence[float]], canary: Canary) -> Logprobs:
    """Of each row of logprobs of all text tokens, those that are compared."""
    return tuple(tuple(row[-count:]) for row, count in zip(rows, canary.compared(), strict=True))


def to_extra(canary: Canary, logprobs: Logprobs) -> dict[str, Any]:
    """The entry "canary" of a manifest's `extra`."""
    return {"digest": canary.digest, "logprobs": [list(row) for row in logprobs]}


def expected(canary: Canary, manifest: Manifest) -> Logprobs:
    """The learner's logprobs in `manifest`. Raises WeightsError where there are none, or of other prompts."""
    published = manifest.extra.get("canary")
    if published is None:
        raise WeightsError(
            f"version {manifest.version} carries no canary; publish it with extra={{'canary': canary.to_extra(...)}}"
        )
    if published["digest"] != canary.digest:
        raise WeightsError(
            f"version {manifest.version}: learner and engine built their canaries from different samples, images or limits"
        )
    return tuple(map(tuple, published["logprobs"]))


def check(canary: Canary, manifest: Manifest, measured: Logprobs, bound: float) -> float:
    """The mean |dlogp| between the learner's logprobs in `manifest` and the engine's `measured`.

    Raises CanaryMismatch where it exceeds `bound` or is not a number, WeightsError as `expected`.
    """
    pairs = [
        pair
        for rows in zip(expected(canary, manifest), measured, strict=True)
        for pair in zip(*rows, strict=True)
    ]
    mean = math.fsum(abs(learned - computed) for learned, computed in pairs) / len(pairs)
    if not mean <= bound:  # also true of nan
        raise CanaryMismatch(
            f"version {manifest.version}: mean |dlogp| between learner and engine is {mean:.4g} over {len(pairs)} tokens, above the bound "
            f"{bound:.4g} (engine.canary_bound): the engine does not compute with the weights that were published. Restart the engine; if "
            "it happens again, a tensor is loaded wrongly"
        )
    return mean
