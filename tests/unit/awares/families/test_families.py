"""Tests that each model family agrees with transformers on ids, positions and module names."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor

from awares.chat import ChatFormat
from awares.errors import PolicyError
from awares.families.qwen2_5_vl import QWEN2_5_VL
from awares.families.qwen3_vl import Qwen3VL
from awares.family import ModelFamily, check_kind, in_tower
from awares.tokens import VisionLimits, visual_tokens

SIZES = [(150, 100), (64, 260), (500, 500)]


@dataclass(frozen=True)
class Case:
    family: ModelFamily
    processor: Any
    model: Any
    chat: ChatFormat

    @property
    def limits(self) -> VisionLimits:
        return self.family.limits(min_pixels=1024, max_pixels=100_000)


@pytest.fixture(scope="module", params=["Qwen2.5-VL", "Qwen3-VL"])
def case(
    request: pytest.FixtureRequest,
    tokenizer: PreTrainedTokenizerFast,
    processor: Qwen2_5_VLProcessor,
    policy: Qwen2_5_VLForConditionalGeneration,
) -> Case:
    if request.param == QWEN2_5_VL.name:
        return Case(QWEN2_5_VL, processor, policy, ChatFormat(tokenizer, "Look."))
    family = Qwen3VL()
    # The preprocessor_config.json of the released Qwen3-VL models has the same three sizes.
    images = Qwen2VLImageProcessor(patch_size=16, merge_size=2, temporal_patch_size=2)
    own = Qwen3VLProcessor(images, tokenizer, Qwen3VLVideoProcessor())
    return Case(family, own, qwen3(tokenizer), ChatFormat(tokenizer, "Look.", family.chat))


def qwen3(tokenizer: PreTrainedTokenizerFast) -> Qwen3VLForConditionalGeneration:
    """Return a tiny Qwen3-VL with random weights.

    The patch and merge sizes are the defaults of transformers.
    """
    names = ("image", "video", "vision_start", "vision_end")
    tokens = ("image_pad", "video_pad", "vision_start", "vision_end")
    ids = {
        f"{name}_token_id": tokenizer.get_vocab()[f"<|{token}|>"]
        for name, token in zip(names, tokens, strict=True)
    }
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 100.0,
            "mrope_section": [2, 3, 3],
            "mrope_interleaved": True,
        },
    }
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "out_hidden_size": 64,
        "num_position_embeddings": 64,
        "deepstack_visual_indexes": [0],
    }
    torch.manual_seed(0)
    config = Qwen3VLConfig(text_config=text, vision_config=vision, **ids)
    return Qwen3VLForConditionalGeneration(config).eval()


@pytest.fixture(scope="module")
def inputs(case: Case) -> Any:
    """Return the output of transformers' processor for a turn with three images."""
    images = [Image.new("RGB", size, "teal") for size in SIZES]
    text = case.processor.tokenizer.decode(case.chat.first_turn("which?", images=len(images)))
    return case.processor(
        text=[text],
        images=images,
        return_mm_token_type_ids=True,
        return_tensors="pt",
        images_kwargs=case.family.processor_options(case.limits),
    )


def expanded(case: Case) -> list[int]:
    counts = iter([visual_tokens(size, case.limits) for size in SIZES])
    return [
        token
        for written in case.chat.first_turn("which?", images=len(SIZES))
        for token in [written] * (next(counts) if written == case.chat.image_token_id else 1)
    ]


def test_expanded_ids_equal_those_of_the_processor(case: Case, inputs: Any) -> None:
    assert inputs["input_ids"][0].tolist() == expanded(case)


def test_sizes_are_those_of_the_model_and_of_its_processor(case: Case) -> None:
    vision, images = case.model.config.vision_config, case.processor.image_processor
    for ours, theirs in case.family.grid_keys.items():
        assert getattr(images, ours) == getattr(vision, theirs), ours
    assert (case.limits.patch, case.limits.merge) == (vision.patch_size, vision.spatial_merge_size)


def test_position_ids_equal_those_of_the_model(case: Case, inputs: Any) -> None:
    theirs, _ = case.model.model.get_rope_index(
        input_ids=inputs["input_ids"],
        mm_token_type_ids=inputs["mm_token_type_ids"],
        image_grid_thw=inputs["image_grid_thw"],
        attention_mask=inputs["attention_mask"],
    )
    merge = case.limits.merge
    patches = inputs["image_grid_thw"].tolist()
    grids = [(rows // merge, columns // merge) for _, rows, columns in patches]
    ids = inputs["input_ids"][0].tolist()
    ours = case.family.positions(ids, case.chat.image_token_id, grids)
    assert ours == [tuple(place) for place in theirs[:, 0].T.tolist()]


@torch.no_grad()
def test_the_model_takes_the_tensors_of_a_batch(case: Case, inputs: Any) -> None:
    names = (
        "input_ids",
        "attention_mask",
        "mm_token_type_ids",
        "pixel_values",
        "image_grid_thw",
    )
    logits = case.model(**{name: inputs[name] for name in names}).logits
    assert logits.isfinite().all()


def test_the_tower_and_the_lora_targets_name_modules(case: Case) -> None:
    tower = case.model.get_submodule(case.family.tower)
    inside = {id(module) for module in tower.modules()}
    linears = [(name, one) for name, one in case.model.named_modules() if type(one) is nn.Linear]
    assert all(in_tower(case.family, name) == (id(one) in inside) for name, one in linears)
    outside = [name.rpartition(".")[2] for name, one in linears if id(one) not in inside]
    assert sorted({*outside} - {"lm_head"}) == sorted(case.family.lora_targets)


def test_config_json_repeats_the_special_tokens(case: Case) -> None:
    vocabulary = case.processor.tokenizer.get_vocab()
    for token, key in case.family.token_keys.items():
        assert vocabulary[token] == getattr(case.model.config, key)


def test_transformers_knows_the_family(case: Case) -> None:
    assert type(case.model).__name__ == case.family.architecture
    assert case.model.config.model_type == case.family.model_type
    found = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES[case.family.model_type]
    assert found == case.family.architecture


def test_names_of_weights_are_current(case: Case) -> None:
    for name in case.model.state_dict():
        assert case.family.current_name(name) == name


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("visual.blocks.0.norm1.weight", "model.visual.blocks.0.norm1.weight"),
        ("model.embed_tokens.weight", "model.language_model.embed_tokens.weight"),
        ("lm_head.weight", "lm_head.weight"),
    ],
)
def test_older_names_of_qwen2_5_vl_are_renewed(older: str, newer: str) -> None:
    assert QWEN2_5_VL.current_name(older) == newer


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda config: config | {"model_type": "llava"},
            r"model_type 'llava', but policy\.family",
        ),
        (lambda config: config | {"architectures": ["Other"]}, r"describes a Other"),
    ],
)
def test_another_model_is_refused(
    case: Case, tmp_path: Any, change: Callable[[dict[str, Any]], dict[str, Any]], said: str
) -> None:
    right = {
        "model_type": case.family.model_type,
        "architectures": [case.family.architecture],
    }
    check_kind(case.family, tmp_path, right)
    with pytest.raises(PolicyError, match=said):
        check_kind(case.family, tmp_path, change(right))
