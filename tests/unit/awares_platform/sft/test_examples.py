"""Tests how curated samples become micro-batches, and that unusable samples are left out."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image

from awares.chat import ChatFormat
from awares.crops import CropId
from awares.errors import DataError
from awares.families.qwen2_5_vl import QWEN2_5_VL
from awares.mini.policy import build_processor
from awares.mini.tokenizer import train_tokenizer
from awares.passes import PassBudget
from awares.sample import Label, Sample
from awares_platform.config.method import MethodConfig
from awares_platform.method.environment import vision_limits
from awares_platform.sft.examples import Collator, prepare
from awares_platform.sft.order import micro_batches

METHOD = MethodConfig()
LIMITS = vision_limits(METHOD, QWEN2_5_VL)
DIRECT = Sample("s/0", "a" * 64, "color at center?", "red", label=Label.LR)
ONE = Sample("s/1", "a" * 64, "color at center?", "red", label=Label.HR, crops=(CropId("4"),))
TWO = Sample(
    "s/2", "b" * 64, "color at center?", "red", label=Label.HR, crops=(CropId("0"), CropId("5"))
)
SIZES = {"a" * 64: (112, 140), "b" * 64: (168, 112)}
PAGE, CHART, SMALL = (2480, 3508), (640, 480), (60, 300)


@pytest.fixture(scope="module")
def processor() -> Any:
    return build_processor(train_tokenizer())


@pytest.fixture(scope="module")
def chat(processor: Any) -> ChatFormat:
    return ChatFormat(processor.tokenizer)


def _collator(processor: Any, chat: ChatFormat, images: Callable[[str], Image.Image]) -> Collator:
    return Collator(images, processor, chat, METHOD, LIMITS, tool_weight=5.0)


def _images(digest: str) -> Image.Image:
    if digest.startswith("bad"):
        raise DataError(f"image {digest} is damaged")
    return Image.new("RGB", SIZES[digest])


def test_weights_are_those_of_the_target_tokens(chat: ChatFormat) -> None:
    examples = prepare([DIRECT, ONE, TWO], SIZES, chat, METHOD, LIMITS, tool_weight=5.0)
    answer = len(chat.target("red"))
    assert examples.weights == (
        answer,
        5 * len(chat.target("GET_CROPS: ['4']")) + answer,
        5 * len(chat.target("GET_CROPS: ['0', '5']")) + answer,
    )
    assert examples.lengths[0] < examples.lengths[1] < examples.lengths[2]


def test_unusable_samples_are_counted_and_left_out(chat: ChatFormat) -> None:
    unlabelled = Sample("s/3", "a" * 64, "color?", "red")
    without_crops = Sample("s/4", "a" * 64, "color?", "red", label=Label.HR)
    rows = [unlabelled, DIRECT, without_crops]
    examples = prepare(rows, SIZES, chat, METHOD, LIMITS, tool_weight=5.0)
    assert examples.samples == (DIRECT,) and examples.skipped == 2
    said = "none of 1 curated samples can be trained on; the first says: sample s/3 has no label"
    with pytest.raises(DataError, match=said):
        prepare([unlabelled], SIZES, chat, METHOD, LIMITS, tool_weight=5.0)


def test_items_with_one_two_and_three_images_share_a_micro_batch(
    processor: Any, chat: ChatFormat
) -> None:
    batch, tool_BT, _ = _collator(processor, chat, _images)([TWO, DIRECT, ONE])
    assert len(batch.image_grid_thw_I3) == 3 + 1 + 2
    features = int((batch.image_grid_thw_I3.prod(1) // 4).sum())
    assert int(batch.mm_token_type_ids_BT.sum()) == features == len(batch.pixel_values_ND) // 4
    requests = [len(chat.target(text)) for text in ("GET_CROPS: ['0', '5']", "GET_CROPS: ['4']")]
    assert tool_BT.sum(1).tolist() == [requests[0], 0, requests[1]]
    assert batch.weights_BT[tool_BT].unique().tolist() == [5.0]
    assert batch.weights_BT[batch.action_mask_BT & ~tool_BT].unique().tolist() == [1.0]
    examples = prepare([TWO, DIRECT, ONE], SIZES, chat, METHOD, LIMITS, tool_weight=5.0)
    # `prepare` computes the same sums of weights without the images. The normaliser of the loss is
    # therefore known before the images are read.
    assert batch.weights_BT.sum(1).tolist() == list(examples.weights)


@pytest.mark.parametrize(
    "method",
    [
        MethodConfig(),
        MethodConfig(views="paper", low_ratio=0.25, small_images="whole"),
    ],
)
def test_lengths_are_exact_and_no_pass_of_pages_and_charts_exceeds_the_budget(
    processor: Any, chat: ChatFormat, method: MethodConfig
) -> None:
    sizes = {"a" * 64: PAGE, "b" * 64: CHART, "c" * 64: SMALL}
    samples = [replace(one, image=image) for image in sizes for one in (DIRECT, DIRECT, ONE, TWO)]
    limits, budget = vision_limits(method, QWEN2_5_VL), PassBudget(rows=6, tokens=2048)
    examples = prepare(samples, sizes, chat, method, limits, tool_weight=5.0)
    [passes] = micro_batches(range(len(samples)), examples.lengths, budget, workers=1)
    images = {digest: Image.new("RGB", size) for digest, size in sizes.items()}
    collate = Collator(images.__getitem__, processor, chat, method, limits, tool_weight=5.0)
    for one in passes:
        batch, _, _ = collate([samples[index] for index in one])
        assert batch.attention_mask_BT.sum(1).tolist() == [examples.lengths[i] for i in one]
        assert len(one) == 1 or batch.input_ids_BT.numel() <= 2048
    assert max(map(len, passes)) > 2 and max(examples.lengths) > 1024


def test_an_unknown_size_counts_as_the_largest(chat: ChatFormat) -> None:
    samples = [DIRECT, ONE, TWO]
    largest = prepare(samples, {}, chat, METHOD, LIMITS, tool_weight=5.0).lengths
    for size in (PAGE, CHART, (1267, 1267), (8000, 9000), (200, 40_000)):
        sizes = dict.fromkeys(SIZES, size)
        exact = prepare(samples, sizes, chat, METHOD, LIMITS, tool_weight=5.0).lengths
        assert all(map(int.__le__, exact, largest))


def test_unreadable_images_are_counted_and_left_out(processor: Any, chat: ChatFormat) -> None:
    collate = _collator(processor, chat, _images)
    bad = Sample("s/9", "bad" + "0" * 61, "color?", "red", label=Label.LR)
    batch, _, unreadable = collate([bad, DIRECT])
    assert len(batch.input_ids_BT) == 1 and unreadable == 1
    batch, tool_BT, unreadable = collate([bad, replace(bad, label=Label.HR, crops=(CropId("4"),))])
    assert unreadable == 2
    # The forward pass needs a sequence, so the batch keeps one sequence, with weights of zero.
    assert batch.action_mask_BT.any() and not batch.weights_BT.any() and not tool_BT.any()
