"""The tokenizer of the tiny policy: byte-level BPE, trained on the benchmark's sentences.

The special tokens are Qwen's.
"""

from collections.abc import Iterator

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from awares.crops import CropId
from awares.mini.questions import ask, sample_kind
from awares.mini.scenes import COLORS, PLACES, SHAPES, sample_scene
from awares.protocol import format_request

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
VOCABULARY = 448
SYSTEM_PROMPT = "Answer, or request crops."


def train_tokenizer() -> PreTrainedTokenizerFast:
    """Train the tokenizer. Every byte has a token, so the tokenizer can encode any text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=[AddedToken(token, special=True) for token in SPECIAL],
        clean_up_tokenization_spaces=False,
    )


def _corpus() -> Iterator[str]:
    """Yield the training texts: questions, answers, descriptions, requests and chat words."""
    rng = np.random.default_rng(0)
    for _ in range(2000):
        scene = sample_scene("train", rng)
        question = ask(scene, sample_kind(rng), rng)
        yield question.text
        yield question.answer
        for item in scene.items:
            named = f"{item.color} {item.shape}"
            yield f"; {item.place}: {named} small; {named} {item.place}"
        yield from (
            "user\n",
            "assistant\n",
            "system\n",
            SYSTEM_PROMPT,
            "Describe the image.",
            "List the shapes.",
            "Look closer.",
        )
    for _ in range(200):
        for words in (COLORS, SHAPES, PLACES):
            yield from words
            yield from (f" {word}" for word in words)
        yield from (str(number) for number in range(19))
        yield from (f" {number}" for number in range(10))
        for first in CropId:
            yield format_request([first])
            yield from (format_request([first, second]) for second in CropId if second is not first)
