"""Makes a Qwen2.5-VL with random weights. Its layers are as wide as the 7B model's, but fewer.

    PYTHONPATH=.:platform python -m tests.rehearsal.shallow_model DIRECTORY

The language model has 1 of 28 layers. `plant` changes the weights, so that the policy writes
requests and ends its answers.
"""

import json
import string
import sys
from collections.abc import Iterator
from itertools import islice, pairwise, product
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

LAYERS = 1
BLOCKS = 2
EMBEDDINGS = 152_064
FIRST_SPECIAL = 151_643
"""The id of the first special token. The ids below it belong to text."""
SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<tool_call>",
    "</tool_call>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
)
"""The special tokens of the 7B model, in the order of their ids."""
PIXELS = {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 16_384}
"""The limits of an image's area in pixels, from the processor files of the 7B model."""
MERGED = 12_000
"""The size of the vocabulary that is learned from text. It includes the 256 single bytes."""
WORDS = Regex(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Qwen's pattern, which splits a text into pieces. No merge joins tokens of two pieces."""
TURNS = ("GET_CROPS: ['0']", "GET_CROPS: ['8']", "red", "circle", "7")
"""The texts that the policy writes after `plant`. Each turn of an episode is one of them."""
LOUD, QUIET = 100.0, 0.1
"""The factors by which `plant` multiplies the embeddings (LOUD) and each layer's outputs (QUIET).

The factors keep the last hidden state close to the embedding of the last token.
"""
PLANTED = 17.0
"""The logit that `plant` gives to a token that may come next.

Such a token is nearly always sampled, because the log-sum-exp of all other logits is about 12.7.
"""
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}"
    "{% else %}<|vision_start|><|image_pad|><|vision_end|>{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer with the same layout of ids as the 7B model.

    A random policy can also sample ids without a learned token. They decode to words of four
    letters.
    """
    learned = Tokenizer(models.BPE())
    pieces = [
        pre_tokenizers.Split(WORDS, behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
    learned.pre_tokenizer = pre_tokenizers.Sequence(pieces)
    trainer = trainers.BpeTrainer(
        vocab_size=MERGED,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    learned.train_from_iterator(_texts(), trainer)
    vocabulary = learned.get_vocab()
    words = ("".join(letters) for letters in product(string.ascii_lowercase, repeat=4))
    unused = (word for word in words if word not in vocabulary)
    start = len(vocabulary)
    unused = islice(unused, FIRST_SPECIAL - start)
    vocabulary |= dict(zip(unused, range(start, FIRST_SPECIAL), strict=True))
    tokenizer = Tokenizer(models.BPE(vocabulary, _merges(learned)))
    tokenizer.pre_tokenizer = learned.pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
    )


def _texts() -> Iterator[str]:
    """Yield the texts of the Python and Markdown files in the four directories named below."""
    root = Path(__file__).parents[2]
    for directory in ("awares", "platform", "helm", "jobs"):
        for pattern in ("*.py", "*.md"):
            for path in sorted((root / directory).rglob(pattern)):
                yield path.read_text("utf-8")


def _merges(tokenizer: Tokenizer) -> list[tuple[str, str]]:
    return [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]


def build_config(tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLConfig:
    """Return the 7B model's configuration, with LAYERS decoder layers and BLOCKS vision blocks."""
    ids: Any = tokenizer.convert_tokens_to_ids
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": EMBEDDINGS,
            "hidden_size": 3584,
            "intermediate_size": 18_944,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "max_position_embeddings": 128_000,
            "rms_norm_eps": 1e-6,
            "initializer_range": 0.02,
            "rope_parameters": {
                "rope_type": "default",
                "mrope_section": [16, 24, 24],
                "rope_theta": 1_000_000.0,
            },
            "bos_token_id": None,
            "eos_token_id": ids("<|im_end|>"),
            "pad_token_id": ids("<|endoftext|>"),
        },
        vision_config={
            "depth": BLOCKS,
            "hidden_size": 1280,
            "intermediate_size": 3420,
            "num_heads": 16,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "tokens_per_second": 2,
            "window_size": 112,
            "out_hidden_size": 3584,
            "fullatt_block_indexes": [BLOCKS - 1],
        },
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
        tie_word_embeddings=False,
    )


def plant(model: Any, tokenizer: PreTrainedTokenizerFast) -> None:
    """Change the weights, so that the policy writes each text of TURNS about equally often."""
    with torch.no_grad():
        embeddings_VD, head_VD = model.get_input_embeddings().weight, model.lm_head.weight
        embeddings_VD.mul_(LOUD)
        for layer in model.model.language_model.layers:
            layer.self_attn.o_proj.weight.mul_(QUIET)
            layer.mlp.down_proj.weight.mul_(QUIET)
        # The last hidden state is close to the embedding of the last token. The added direction
        # makes `after` likely after `before`.
        for before, after in successions(tokenizer):
            direction_D = embeddings_VD[before].float()
            step_D = PLANTED * direction_D / direction_D.norm() / len(direction_D) ** 0.5
            head_VD[after] += step_D.to(head_VD.dtype)


def successions(tokenizer: PreTrainedTokenizerFast) -> list[tuple[int, int]]:
    """Return the pairs of neighbouring tokens in TURNS, each pair once.

    A text of TURNS stands between a newline and <|im_end|>, so the pairs include these two tokens.
    """
    encoded = [tokenizer.encode(f"\n{text}<|im_end|>") for text in TURNS]
    return list(dict.fromkeys(pair for ids in encoded for pair in pairwise(ids)))


def build_processor(tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLProcessor:
    """Return a processor with the image limits of the 7B model."""
    options: Any = {"size": PIXELS, "patch_size": 14, "merge_size": 2, "temporal_patch_size": 2}
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(**options),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(**options),
        chat_template=CHAT_TEMPLATE,
    )


def save(directory: Path, seed: int = 0) -> None:
    """Write the model (bfloat16, 2.8 GB), the tokenizer and the processor to `directory`."""
    tokenizer = build_tokenizer()
    torch.manual_seed(seed)
    torch.set_default_dtype(torch.bfloat16)
    try:
        model = Qwen2_5_VLForConditionalGeneration(build_config(tokenizer))
    finally:
        torch.set_default_dtype(torch.float32)
    plant(model, tokenizer)
    build_processor(tokenizer).save_pretrained(directory)
    model.save_pretrained(directory)


if __name__ == "__main__":
    save(Path(sys.argv[1]))
