"""Tests the canary: its prompts, its compared tokens, and the limit of the logprob difference.

The canary is a few fixed prompts, on which engine and learner must agree after each load.
"""

import asyncio
import math
import threading
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from PIL import Image
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor

from awares.batch import collate, sequence_length
from awares.chat import ChatFormat
from awares.errors import DataError
from awares.logprobs import token_logprobs
from awares.mini import POLICY
from awares.mini.tokenizer import train_tokenizer
from awares.sample import Sample
from awares.tokens import VisionLimits
from awares_platform.engine.canary import (
    Canary,
    CanaryMismatch,
    check,
    check_fit,
    learner_logprobs,
    tails,
    to_extra,
)
from awares_platform.engine.canary_check import CanaryCheck
from awares_platform.weights.manifest import Manifest, WeightsError

SAMPLES = (Sample("a", "f0", "digit on the red circle?", "7"), Sample("b", "f1", "colour?", "red"))


@pytest.fixture(scope="module")
def chat() -> ChatFormat:
    return ChatFormat(train_tokenizer())


@pytest.fixture(scope="module")
def canary(chat: ChatFormat) -> Canary:
    return Canary.build(SAMPLES, picture, chat, VisionLimits(min_pixels=784), 0.5)


def picture(name: str) -> Image.Image:
    return Image.new("RGB", (112, 112), (200, 30 if name == "f0" else 90, 40))


def test_a_prompt_holds_both_turns_and_their_images(canary: Canary, chat: ChatFormat) -> None:
    (ids, images), _ = canary.prompts
    assert ids.count(chat.image_token_id) == len(images) == 2
    assert images[0].size == (56, 56)
    assert ids[: len(chat.first_turn("digit on the red circle?"))] == chat.first_turn(
        "digit on the red circle?"
    )
    assert ids[-len(chat.target("7")) :] == chat.target("7")


def test_a_question_fits_if_the_engine_can_score_its_longest_item(chat: ChatFormat) -> None:
    """Check that a question fits if the context holds its longest canary item and one more token.

    The engine samples one token when it scores an item.
    """
    sample, limits = replace(SAMPLES[0], question="why " * 40), VisionLimits(min_pixels=784)
    items = Canary.build([sample] * 4, picture, chat, limits, 0.5).items
    longest = max(sequence_length(item, limits, 0.5) for item in items)
    check_fit(sample, (112, 112), chat, limits, 0.5, context=longest + 1)
    with pytest.raises(DataError, match=rf"a needs .* of {longest} \(engine.max_model_len\)"):
        check_fit(sample, (112, 112), chat, limits, 0.5, context=longest)


def test_text_after_the_first_image_is_compared(canary: Canary, chat: ChatFormat) -> None:
    for (ids, _), count in zip(canary.prompts, canary.compared(), strict=True):
        first = ids.index(chat.image_token_id)
        assert count == len(ids) - first - 2
    rows = tails([[float(index) for index in range(90)]] * 2, canary)
    assert [len(row) for row in rows] == canary.compared()
    assert all(row[-1] == 89.0 for row in rows)


class Originals(dict[str, Image.Image]):
    """A canary's images, in a dict that records the thread of each access."""

    def __init__(self, canary: Canary) -> None:
        super().__init__(canary.originals)
        self.threads: list[int] = []

    def __getitem__(self, name: str) -> Image.Image:
        self.threads.append(threading.get_ident())
        return super().__getitem__(name)


def test_a_check_renders_each_view_once_and_not_on_the_event_loop(canary: Canary) -> None:
    """Rendering a page takes 78 ms, which would hold up all other tasks of the event loop."""
    originals = Originals(canary)
    fresh = replace(canary, originals=originals)
    logprobs = rows(canary, -1.0)
    manifest = Manifest(1, 1, (), {"canary": to_extra(canary, logprobs, logprobs)})

    async def score(ids: Sequence[int], images: Sequence[Image.Image]) -> tuple[float, ...]:
        assert images
        return (-1.0,) * len(ids)

    async def checked() -> None:
        check = CanaryCheck(score, 0.06)
        await check.measure_start(fresh, manifest, version=0)
        await check.verify(fresh, manifest)

    asyncio.run(checked())
    assert len(originals.threads) == 4
    assert threading.get_ident() not in originals.threads


def test_the_head_computes_only_the_compared_tokens() -> None:
    """The logits of all tokens of a whole page would take gigabytes."""
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(POLICY).eval()
    processor = Qwen2_5_VLProcessor.from_pretrained(POLICY)
    canary = Canary.build(
        SAMPLES, picture, ChatFormat(processor.tokenizer), VisionLimits(min_pixels=784), 0.5
    )
    computed: list[int] = []
    model.lm_head.register_forward_hook(
        lambda _, __, logits: computed.append(logits.numel() // logits.shape[-1])
    )
    found = learner_logprobs(model, processor, canary)
    assert computed == canary.compared()
    batch = collate(canary.items, canary.originals.__getitem__, processor, canary.limits, 0.5)
    with torch.no_grad():
        logits_BTV = model(**batch.forward_inputs(), use_cache=False).logits
    logprobs_BT = token_logprobs(logits_BTV, batch.input_ids_BT)
    text_BT = batch.attention_mask_BT.bool() & (batch.input_ids_BT != canary.image_token_id)
    rows = [row[text].tolist() for row, text in zip(logprobs_BT, text_BT, strict=True)]
    expected = tails(rows, canary)
    assert [*map(len, found)] == canary.compared()
    assert [x for row in found for x in row] == pytest.approx(
        [x for row in expected for x in row], abs=1e-4
    )


def test_the_digest_tells_samples_pixels_and_limits_apart(canary: Canary, chat: ChatFormat) -> None:
    limits = VisionLimits(min_pixels=784)
    assert canary.digest == Canary.build(SAMPLES, picture, chat, limits, 0.5).digest
    others = [
        Canary.build(SAMPLES[::-1], picture, chat, limits, 0.5),
        Canary.build(SAMPLES, lambda _: Image.new("RGB", (112, 112)), chat, limits, 0.5),
        replace(canary, limits=VisionLimits(min_pixels=1568)),
    ]
    assert len({canary.digest, *(other.digest for other in others)}) == 4


def rows(canary: Canary, value: float) -> tuple[tuple[float, ...], ...]:
    return tuple((value,) * count for count in canary.compared())


def test_the_mean_difference_is_returned_within_the_bound(canary: Canary) -> None:
    manifest = Manifest(3, 1, (), {"canary": to_extra(canary, rows(canary, -1.0))})
    measured = [[*row] for row in rows(canary, -1.01)]
    measured[0][0] = -0.99
    assert check(canary, manifest, tuple(map(tuple, measured)), 0.06) == pytest.approx(0.01)


@pytest.mark.parametrize("value", [-1.5, math.nan])
def test_a_mismatch_names_version_value_and_bound(canary: Canary, value: float) -> None:
    manifest = Manifest(3, 1, (), {"canary": to_extra(canary, rows(canary, -1.0))})
    with pytest.raises(
        CanaryMismatch,
        match=r"version 3: mean \|dlogp\| .* is (0\.5|nan) over \d+ tokens, above the bound 0\.06",
    ) as caught:
        check(canary, manifest, rows(canary, value), 0.06)
    assert "engine.canary_bound" in str(caught.value)


def test_a_version_without_a_canary_or_with_another_is_refused(canary: Canary) -> None:
    with pytest.raises(WeightsError, match="version 3 carries no canary"):
        check(canary, Manifest(3, 1, ()), rows(canary, 0.0), 0.06)
    other = {"canary": {"digest": "00", "logprobs": []}}
    with pytest.raises(WeightsError, match="different samples, images or limits"):
        check(canary, Manifest(3, 1, (), other), rows(canary, 0.0), 0.06)
