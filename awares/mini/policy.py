"""Builds the tiny Qwen2.5-VL, and writes its files.

The tiny policy and the 7B policy have the same model class. The tiny policy has 2 million
parameters.
"""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    PreTrainedTokenizerBase,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from awares.mini.scenes import SIDE

WIDTH = 128
LOUD, QUIET = 3.0, 0.1
"""The initial embeddings are multiplied by LOUD, and the output matrices of each layer by QUIET."""

SPACE = "\u0120"
"""The character that byte-level BPE writes for a space at the start of a token."""


def build_config(tokenizer: PreTrainedTokenizerBase) -> Qwen2_5_VLConfig:
    """Return a configuration with 4 text layers and 4 vision blocks, each 128 wide.

    `initializer_range` is 0.08. With the usual 0.02, attention stays uniform for many steps.
    """
    ids: Any = tokenizer.convert_tokens_to_ids
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": WIDTH,
            "intermediate_size": 3 * WIDTH,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 1024,
            "initializer_range": 0.08,
            "rope_parameters": {
                "rope_type": "default",
                "mrope_section": [4, 6, 6],
                "rope_theta": 10000.0,
            },
            "bos_token_id": None,
            "eos_token_id": ids("<|im_end|>"),
            "pad_token_id": ids("<|endoftext|>"),
        },
        vision_config={
            "depth": 4,
            "hidden_size": WIDTH,
            "intermediate_size": 2 * WIDTH,
            "num_heads": 4,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": SIDE,
            "out_hidden_size": WIDTH,
            "fullatt_block_indexes": [0, 1, 2, 3],
        },
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
        tie_word_embeddings=False,
    )


def build_model(
    tokenizer: PreTrainedTokenizerBase, seed: int
) -> Qwen2_5_VLForConditionalGeneration:
    """Return a newly initialised model in float32.

    - A token's vectors in the embedding and in the language head start parallel, so the model need
      not learn to copy a word into the answer.
    - The embedding and the head are not tied, so training may change each of them alone.
    - The embeddings start large, so the layers' random initial outputs do not hide them.
    """
    torch.manual_seed(seed)
    model: Any = Qwen2_5_VLForConditionalGeneration(build_config(tokenizer))
    vocabulary = tokenizer.get_vocab()
    spaced = {
        vocabulary[token[1:]]: index
        for token, index in vocabulary.items()
        if token[:1] == SPACE and token[1:] in vocabulary
    }
    with torch.no_grad():
        embeddings_VD = model.get_input_embeddings().weight
        embeddings_VD[list(spaced)] = embeddings_VD[list(spaced.values())]
        model.lm_head.weight.copy_(embeddings_VD)
        embeddings_VD.mul_(LOUD)
        for layer in model.model.language_model.layers:
            layer.self_attn.o_proj.weight.mul_(QUIET)
            layer.mlp.down_proj.weight.mul_(QUIET)
    return model


def build_processor(tokenizer: PreTrainedTokenizerBase) -> Qwen2_5_VLProcessor:
    """Return the policy's processor, which does not resize any view of a scene."""
    limits = {"shortest_edge": 28 * 28, "longest_edge": SIDE * SIDE}
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(
            size=limits, patch_size=14, merge_size=2, temporal_patch_size=2
        ),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(
            size=limits, patch_size=14, merge_size=2, temporal_patch_size=2
        ),
        chat_template=CHAT_TEMPLATE,
    )


def save_policy(
    model: Qwen2_5_VLForConditionalGeneration, tokenizer: PreTrainedTokenizerBase, directory: Path
) -> None:
    """Write weights (bfloat16), configuration, tokenizer and processor in Hugging Face's format."""
    build_processor(tokenizer).save_pretrained(directory)
    model.to(torch.bfloat16).save_pretrained(directory)  # pyright: ignore[reportArgumentType]


CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}"
    "{% else %}<|vision_start|><|image_pad|><|vision_end|>{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
