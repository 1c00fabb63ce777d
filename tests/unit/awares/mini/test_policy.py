"""Tests the shipped policy's accuracy, and compares its batched forward pass with transformers."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoProcessor, AutoTokenizer, Qwen2_5_VLForConditionalGeneration

from awares.chat import ChatFormat
from awares.mini import POLICY
from awares.mini.conversation import Lesson, LessonForm, converse
from awares.mini.lessons import answer_logits, collate
from awares.mini.measure import examine
from awares.mini.pretrain import STAGES, Batches
from awares.mini.scenes import draw, sample_scene
from awares.mini.tokenizer import SYSTEM_PROMPT

TOKENIZER = AutoTokenizer.from_pretrained(POLICY)


@pytest.fixture(scope="module")
def model():
    torch.set_num_threads(1)
    return Qwen2_5_VLForConditionalGeneration.from_pretrained(POLICY, dtype=torch.float32)


@given(st.text())
def test_the_tokenizer_round_trips_any_text(text):
    ids = TOKENIZER.encode(text, add_special_tokens=False, split_special_tokens=True)

    assert TOKENIZER.decode(ids) == text


@pytest.mark.parametrize("form", ["full", "low", "crop", "closer"])
def test_the_batched_forward_equals_transformers(model, form: LessonForm):
    chat, rng = ChatFormat(TOKENIZER, SYSTEM_PROMPT), np.random.default_rng(3)
    scene = sample_scene("test", rng)
    talk = converse(form, scene, draw(scene), chat, Lesson(0.5, 16), rng)
    processor = AutoProcessor.from_pretrained(POLICY).image_processor
    images = [Image.fromarray(image) for image in talk.images]
    pixels = processor(images, return_tensors="pt")
    ids = torch.tensor([talk.ids])
    types = (ids == chat.image_token_id).int()

    with torch.no_grad():
        ours, _ = answer_logits(model, collate([talk], chat.image_token_id))
        theirs = model(input_ids=ids, mm_token_type_ids=types, **pixels).logits[0, :-1]

    assert torch.allclose(ours, theirs[torch.tensor(talk.learned[1:])], atol=2e-4)


def test_batches_depend_on_the_step_alone():
    chat = ChatFormat(TOKENIZER, SYSTEM_PROMPT)
    first, second = (Batches(STAGES[2], chat, seed=0)[7] for _ in range(2))
    other = Batches(STAGES[2], chat, seed=0)[8]

    def same(left, right):
        pairs = zip(left, right, strict=True)
        return all(torch.equal(one.ids_BL, two.ids_BL) for one, two in pairs)

    assert same(first, second) and not same(first, other)


def test_the_shipped_policy_answers_legible_questions_and_misses_illegible_ones(model):
    accuracy = examine(model, ChatFormat(TOKENIZER, SYSTEM_PROMPT), 3000, seed=1).accuracy

    assert accuracy["full"]["all"] >= 0.92
    assert accuracy["low"]["LR"] >= 0.90
    assert accuracy["low"]["HR"] <= 0.40


def test_the_shipped_figures_are_those_of_the_pretraining_run(model):
    figures = json.loads((POLICY / "pretraining.json").read_text())
    measured = examine(model, ChatFormat(TOKENIZER, SYSTEM_PROMPT), 1000, seed=2).accuracy

    assert measured["full"]["all"] == pytest.approx(figures["accuracy"]["full"]["all"], abs=0.03)
