"""Checks that the largest legal request fits the engine, before a job starts an engine.

    prompt + max_visual_tokens + replies + max_turns * max_tokens <= engine.max_model_len
    low-resolution view + max_crops                               <= engine.max_images

The tokenizer is not loaded yet, so the length of the prompt is an estimate. A job checks each
question exactly, and leaves out a question that is too long.
"""

from collections.abc import Mapping

from awares_platform.config.engine import EngineConfig
from awares_platform.config.method import MethodConfig

CHARACTERS_PER_TOKEN = 4
"""An estimate for English text with Qwen's tokenizer."""
QUESTION = 64
"""Tokens that must be left for a question and the chat layout of the first turn."""
REPLY = 16
"""An upper bound on the tokens of the chat layout of a reply, without its images."""
IMAGE = 2
"""Tokens that enclose the visual tokens of an image."""


def largest_request(
    method: MethodConfig, engine: EngineConfig, max_tokens: Mapping[str, int]
) -> str | None:
    """Return why the largest legal request does not fit the engine, or None if it fits.

    `max_tokens` maps the keys of the jobs' token limits to their values.
    """
    if method.max_turns == 1:
        return None
    images = 1 + method.max_crops
    if images > engine.max_images:
        return (
            f"method.max_crops = {method.max_crops} and the low-resolution view are {images} "
            f"images, more than engine.max_images = {engine.max_images}: raise the latter to "
            f"{images}, or lower method.max_crops to {engine.max_images - 1}"
        )
    key = max(max_tokens, key=lambda name: max_tokens[name])
    prompt = len(method.system_prompt) // CHARACTERS_PER_TOKEN + QUESTION
    replies = (method.max_turns - 1) * REPLY + IMAGE * images
    sampled = method.max_turns * max_tokens[key]
    needed = prompt + method.max_visual_tokens + replies + sampled
    if needed <= engine.max_model_len:
        return None
    return (
        f"method.max_visual_tokens = {method.max_visual_tokens}, {method.max_turns} turns of "
        f"{key} = {max_tokens[key]}, a prompt of about {prompt} and replies of {replies} are "
        f"{needed} tokens, more than engine.max_model_len = {engine.max_model_len}: raise the "
        "latter, or lower one of the former"
    )
