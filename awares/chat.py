"""The chat layout as token ids, built piece by piece so that nothing is ever decoded and encoded again.

    <|im_start|>system\\n{system}<|im_end|>\\n                                    (left out when the system prompt is empty)
    <|im_start|>user\\n(<|vision_start|><|image_pad|><|vision_end|>)*{question}<|im_end|>\\n
    <|im_start|>assistant\\n{sampled ... <|im_end|>}
    \\n<|im_start|>user\\n(<|vision_start|><|image_pad|><|vision_end|>)*<|im_end|>\\n   (the tool's reply: crops and no text)
    <|im_start|>assistant\\n{sampled ... <|im_end|>}

ONE <|image_pad|> stands for one image; engines and `awares.batch` expand it.
"""

from collections.abc import Sequence
from typing import Any

from awares.errors import DataError, PolicyError

_IMAGE = "<|image_pad|>"
_REQUIRED = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", _IMAGE)
_PLACEHOLDERS = (
    "<|im_start|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    _IMAGE,
    "<|video_pad|>",
)
_STOPS = ("<|im_end|>", "<|endoftext|>")


class ChatFormat:
    """Token ids of prompts and replies for one tokenizer (a transformers fast tokenizer with Qwen's special tokens).

    `stop_ids` end a turn, the first of them is <|im_end|>; `blocked_ids` must never be sampled. Raises PolicyError for a tokenizer
    without the special tokens.

    Example:
        chat = ChatFormat(tokenizer, SYSTEM_PROMPT)
        prompt = chat.first_turn("digit on the red circle?")
    """

    def __init__(self, tokenizer: Any, system_prompt: str = "") -> None:
        self.tokenizer = tokenizer
        self.system_prompt = system_prompt
        vocabulary: dict[str, int] = tokenizer.get_vocab()
        missing = [token for token in _REQUIRED if token not in vocabulary]
        if missing:
            raise PolicyError(
                f"the tokenizer lacks {', '.join(missing)}; use the tokenizer of a Qwen2.5-VL policy"
            )
        start, self.end_id, vision_start, vision_end, self.image_token_id = (
            vocabulary[token] for token in _REQUIRED
        )
        self.stop_ids: tuple[int, ...] = tuple(
            vocabulary[token] for token in _STOPS if token in vocabulary
        )
        self.blocked_ids: tuple[int, ...] = tuple(
            vocabulary[token] for token in _PLACEHOLDERS if token in vocabulary
        )
        self._image = (vision_start, self.image_token_id, vision_end)
        newline = self._literal("\n")
        self._user = (start, *self._literal("user\n"))
        self._between = (self.end_id, *newline, start, *self._literal("assistant\n"))
        self._resume = (*newline, *self._user)
        self._system = (
            (start, *self._literal("system\n"), *self.encode(system_prompt), self.end_id, *newline)
            if system_prompt
            else ()
        )

    def first_turn(self, question: str, images: int = 1) -> tuple[int, ...]:
        """The prompt of turn 1, up to where the assistant begins; `images` placeholders precede the question."""
        return (
            *self._system,
            *self._user,
            *(self._image * images),
            *self.encode(question),
            *self._between,
        )

    def follow_up(self, question: str) -> tuple[int, ...]:
        """A further question in the same conversation, from after the sampled <|im_end|> up to the next turn's start."""
        return (*self._resume, *self.encode(question), *self._between)

    def tool_reply(self, images: int) -> tuple[int, ...]:
        """What follows the sampled <|im_end|> of a request: a user message of `images` placeholders, up to the next turn's start."""
        return (*self._resume, *(self._image * images), *self._between)

    def target(self, text: str) -> tuple[int, ...]:
        """A turn as it would have been sampled: the text's ids and <|im_end|>."""
        return (*self.encode(text), self.end_id)

    def encode(self, text: str) -> tuple[int, ...]:
        """Ids of plain text: special tokens written in it are spelled out, so a question cannot forge a turn or an image.

        Raises DataError when the tokenizer cannot spell one out.
        """
        ids = self._literal(text)
        forged = {self.end_id, *self.blocked_ids}.intersection(ids)
        if forged:
            tokens = ", ".join(self.tokenizer.convert_ids_to_tokens(sorted(forged)))
            raise DataError(f"text {text[:60]!r} holds the special tokens {tokens}; remove them")
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of sampled ids without special tokens, for parsing and display only."""
        return self.tokenizer.decode(
            list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )

    def _literal(self, text: str) -> tuple[int, ...]:
        return tuple(
            self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
        )
