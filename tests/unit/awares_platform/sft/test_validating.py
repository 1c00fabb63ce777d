"""Tests the validation of the tiny policy on held-out demonstrations, without DeepSpeed."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from awares.chat import ChatFormat
from awares.crops import CropId
from awares.families.qwen2_5_vl import QWEN2_5_VL
from awares.logprobs import policy_logprobs
from awares.losses import sft_loss
from awares.mini.policy import build_model, build_processor
from awares.mini.tokenizer import train_tokenizer
from awares.sample import Label, Sample
from awares_platform.config.method import MethodConfig
from awares_platform.method.environment import vision_limits
from awares_platform.sft.examples import Collator
from awares_platform.sft.validating import TeacherForced, figures, forced

METHOD = MethodConfig()
DIRECT = Sample("s/0", "a" * 64, "color at center?", "red", label=Label.LR)
ASKING = replace(DIRECT, sample_id="s/1", label=Label.HR, crops=(CropId("4"),))


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train_tokenizer()


@pytest.fixture(scope="module")
def collate(tokenizer: Any) -> Collator:
    limits, processor = vision_limits(METHOD, QWEN2_5_VL), build_processor(tokenizer)
    chat = ChatFormat(processor.tokenizer)

    def image(digest: str) -> Image.Image:
        return Image.new("RGB", (112, 140))

    return Collator(image, processor, chat, METHOD, limits, tool_weight=5.0)


def test_the_loss_is_that_of_training_and_a_trained_request_is_right(
    tokenizer: Any, collate: Collator, tmp_path: Path
) -> None:
    model = build_model(tokenizer, seed=0)
    batch, tool_BT, _ = collate([DIRECT, ASKING])
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(60):
        loss = sft_loss(policy_logprobs(model, batch), batch.weights_BT)
        results = [*forced(model, [(batch, tool_BT)], packed=False)]
        assert figures(results)["validation/loss"] == pytest.approx(loss.item(), rel=1e-5)
        if step == 0:
            assert not [one for one in results if one.asks][0].right
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    [asked] = [one for one in forced(model, [(batch, tool_BT)], packed=False) if one.asks]
    assert asked.right and asked.likely == asked.first


def test_a_sequence_without_weights_has_no_result(tokenizer: Any, collate: Collator) -> None:
    batch, tool_BT, _ = collate([DIRECT])
    blank = replace(batch, weights_BT=torch.zeros_like(batch.weights_BT))
    assert [*forced(build_model(tokenizer, seed=0), [(blank, tool_BT)], packed=False)] == []


def result(asks: bool, right: bool, first: int, likely: int) -> TeacherForced:
    return TeacherForced(1.0, 2.0, asks=asks, right=right, first=first, likely=likely)


def test_decisions_and_requests_count_separately() -> None:
    # Token 9 begins a request. Tokens 4 and 5 begin an answer.
    results = [
        result(asks=True, right=True, first=9, likely=9),
        result(asks=True, right=False, first=9, likely=9),  # The policy asks for wrong crops.
        result(asks=True, right=False, first=9, likely=4),  # The policy answers instead.
        result(asks=False, right=True, first=4, likely=5),  # The policy answers wrongly.
        result(asks=False, right=True, first=4, likely=9),  # The policy asks instead.
    ]
    found = figures(results)
    assert found["validation/tool_turns"] == pytest.approx(1 / 3)
    assert found["validation/decisions"] == pytest.approx(3 / 5)
    assert found["validation/loss"] == pytest.approx(0.5)
    assert "validation/tool_turns" not in figures(results[3:]) and figures([]) == {}
