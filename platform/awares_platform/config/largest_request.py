"""Checks that the largest legal request fits the engine, before a job starts an engine.

    prompt + max_visual_tokens + replies + max_turns * max_tokens <= engine.max_model_len
    low-resolution view + max_crops                               <= engine.max_images

A reply is the message that returns the crops of a request. The length of the prompt is an estimate,
because the tokenizer is not loaded yet.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from awares.budget import budget_text
from awares_platform.config.engine import EngineConfig
from awares_platform.config.method import OWN_PROMPT, TEN_CROPS, MethodConfig

CHARACTERS_PER_TOKEN = 4
"""The estimated number of characters per token of English text with Qwen's tokenizer."""
QUESTION = 64
"""Number of tokens reserved for a question and the chat layout of the first turn."""
REPLY = 16
"""Maximum number of chat-layout tokens in a message that returns crops."""
IMAGE = 2
"""Number of tokens that enclose the visual tokens of an image."""


@dataclass(frozen=True, slots=True)
class LargestRequest:
    """The number of images in the longest legal episode, and its tokens by kind.

    Example:
        LargestRequest(prompt=163, visual=4096, replies=26, sampled=1024, images=5)
    """

    prompt: int
    """The tokens of the system message, and those reserved for a question."""
    visual: int
    """The visual tokens of all images."""
    replies: int
    """The other tokens of the messages that return crops, and the tokens around each image."""
    sampled: int
    """The sampled tokens of all turns."""
    images: int

    @property
    def tokens(self) -> int:
        """The total number of tokens."""
        return self.prompt + self.visual + self.replies + self.sampled


def largest(method: MethodConfig, max_tokens: int, prompt: str) -> LargestRequest:
    """Return the numbers of tokens and images in the longest episode that the budget allows.

    A turn samples at most `max_tokens` tokens. `prompt` is the policy's system message.
    """
    again = method.max_turns - 1
    images = 1 + (method.max_crops if again else 0)
    return LargestRequest(
        prompt=len(prompt) // CHARACTERS_PER_TOKEN + QUESTION,
        visual=method.max_visual_tokens,
        replies=again * REPLY + IMAGE * images,
        sampled=method.max_turns * max_tokens,
        images=images,
    )


def _known_prompt(method: MethodConfig) -> str:
    """Return the part of the policy's system message that is known without user code.

    If the user brings an environment with a prompt of its own, return only the sentence about the
    budget.
    """
    if method.system_prompt != OWN_PROMPT:
        return method.system_prompt
    from awares.protocol import SYSTEM_PROMPT

    own = SYSTEM_PROMPT if method.environment == TEN_CROPS else ""
    return f"{own} {budget_text(method.max_visual_tokens, method.max_crops)}"


def largest_request(
    method: MethodConfig, engine: EngineConfig, max_tokens: Mapping[str, int]
) -> str | None:
    """Return why the largest legal request does not fit the engine, or None if it fits.

    `max_tokens` maps the key of each job's token limit, such as grpo.max_tokens, to its value.
    """
    if method.max_turns == 1:
        return None
    key = max(max_tokens, key=lambda name: max_tokens[name])
    most = largest(method, max_tokens[key], _known_prompt(method))
    if most.images > engine.max_images:
        return (
            f"method.max_crops = {method.max_crops} and the low-resolution view are {most.images} "
            f"images, more than engine.max_images = {engine.max_images}: raise the latter to "
            f"{most.images}, or lower method.max_crops to {engine.max_images - 1}"
        )
    if most.tokens <= engine.max_model_len:
        return None
    return (
        f"method.max_visual_tokens = {most.visual}, {method.max_turns} turns of "
        f"{key} = {max_tokens[key]}, a prompt of about {most.prompt} and replies of "
        f"{most.replies} are {most.tokens} tokens, more than engine.max_model_len = "
        f"{engine.max_model_len}: raise the latter, or lower one of the former"
    )
