"""Builds the token ids of prompts and replies.

Sampled ids enter the next prompt as they are, because decoding and encoding could change them.

The first turn has this layout. If the system prompt is empty, the first line is left out.

    <|im_start|>system\\n{system}<|im_end|>\\n
    <|im_start|>user\\n{images}{question}<|im_end|>\\n
    <|im_start|>assistant\\n{sampled ... <|im_end|>}

The reply to a request for crops is a user message with the crops and without text:

    \\n<|im_start|>user\\n{images}<|im_end|>\\n
    <|im_start|>assistant\\n{sampled ... <|im_end|>}

Each image is <|vision_start|><|image_pad|><|vision_end|>, with ONE <|image_pad|>. Engines and
`awares.batch` replace this placeholder by one <|image_pad|> for each visual token.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from awares.errors import DataError, PolicyError
from awares.families.qwen2_5_vl import QWEN2_5_VL
from awares.family import ChatTokens


@dataclass(frozen=True, slots=True)
class Said:
    """One message of a conversation, with the number of images that precede its text.

    Example:
        Said("user", "Which digit is on the red circle?", images=1)
    """

    role: Literal["user", "assistant"]
    text: str
    images: int = 0


class ChatFormat:
    """Builds the token ids of prompts and replies with a transformers fast tokenizer.

    Raises PolicyError if the tokenizer lacks a special token of the family.

    Example:
        chat = ChatFormat(tokenizer, SYSTEM_PROMPT)
        prompt = chat.first_turn("digit on the red circle?")
    """

    def __init__(
        self, tokenizer: Any, system_prompt: str = "", tokens: ChatTokens = QWEN2_5_VL.chat
    ) -> None:
        self.tokenizer = tokenizer
        self.system_prompt = system_prompt
        vocabulary: dict[str, int] = tokenizer.get_vocab()
        image = (tokens.image_start, tokens.image, tokens.image_end)
        required = (tokens.start, tokens.end, *image)
        if missing := [token for token in required if token not in vocabulary]:
            raise PolicyError(
                f"the tokenizer lacks {', '.join(missing)}; use the tokenizer of the policy's "
                "own family (policy.family)"
            )
        self._start, self.end_id = vocabulary[tokens.start], vocabulary[tokens.end]
        self.image_token_id = vocabulary[tokens.image]
        self.stop_ids = tuple(vocabulary[token] for token in tokens.stops if token in vocabulary)
        self.blocked_ids = tuple(
            vocabulary[token] for token in tokens.blocked if token in vocabulary
        )
        self._image = tuple(vocabulary[token] for token in image)
        newline = self._literal("\n")
        self._user = (self._start, *self._literal("user\n"))
        self._answer = (self._start, *self._literal("assistant\n"))
        self._close = (self.end_id, *newline)
        self._between = (*self._close, *self._answer)
        self._resume = (*newline, *self._user)
        self._system = self._system_message(system_prompt)

    def first_turn(self, question: str, images: int = 1) -> tuple[int, ...]:
        """Return the ids of turn 1's prompt, up to the start of the assistant's text.

        `images` is the number of image placeholders before the question.
        """
        return (
            *self._system,
            *self._user,
            *(self._image * images),
            *self.encode(question),
            *self._between,
        )

    def conversation(self, said: Sequence[Said], instructions: str = "") -> tuple[int, ...]:
        """Return the ids of a conversation, up to the start of the assistant's next text.

        The `instructions` follow the system prompt in the system message. For one question without
        instructions, the ids are those of `first_turn`.
        """
        system = "\n\n".join(filter(None, (self.system_prompt, instructions)))
        ids = self._system if not instructions else self._system_message(system)
        for one in said:
            role = self._user if one.role == "user" else self._answer
            ids += (*role, *(self._image * one.images), *self.encode(one.text), *self._close)
        return (*ids, *self._answer)

    def ended(self, sampled: Sequence[int]) -> tuple[int, ...]:
        """Return sampled ids with <|im_end|> as the last id, so that another turn may follow."""
        kept = sampled[:-1] if sampled and sampled[-1] in self.stop_ids else sampled
        return (*kept, self.end_id)

    def follow_up(self, question: str) -> tuple[int, ...]:
        """Return the ids of a further question in the same conversation.

        The ids start after the sampled <|im_end|> and end where the assistant's next text starts.
        """
        return (*self._resume, *self.encode(question), *self._between)

    def tool_reply(self, images: int) -> tuple[int, ...]:
        """Return the ids of a user message with `images` image placeholders and no text.

        The message answers a request for crops. Its ids begin after the sampled <|im_end|> and end
        at the start of the assistant's next text.
        """
        return (*self._resume, *(self._image * images), *self._between)

    def target(self, text: str) -> tuple[int, ...]:
        """Return the ids of a turn in which the policy writes `text`, including <|im_end|>."""
        return (*self.encode(text), self.end_id)

    def encode(self, text: str) -> tuple[int, ...]:
        """Return the ids of plain text.

        Names of special tokens become ordinary tokens, so a question cannot forge a turn or an
        image. Raises DataError if the ids contain a special token nevertheless.
        """
        ids = self._literal(text)
        forged = {*self.stop_ids, *self.blocked_ids}.intersection(ids)
        if forged:
            tokens = ", ".join(self.tokenizer.convert_ids_to_tokens(sorted(forged)))
            raise DataError(f"text {text[:60]!r} holds the special tokens {tokens}; remove them")
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of sampled ids, without special tokens, for parsing or for display."""
        return self.tokenizer.decode(
            list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )

    def _system_message(self, text: str) -> tuple[int, ...]:
        if not text:
            return ()
        return (self._start, *self._literal("system\n"), *self.encode(text), *self._close)

    def _literal(self, text: str) -> tuple[int, ...]:
        return tuple(
            self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
        )


_PROBE = "awares"


def template_prompt(tokenizer: Any, tokens: ChatTokens = QWEN2_5_VL.chat) -> str:
    """Return the system message that the tokenizer's chat template adds, or "" if it adds none.

    Raises PolicyError if the template is missing, fails, or has another layout than `ChatFormat`.
    """
    if not tokenizer.chat_template:
        raise PolicyError(
            "the tokenizer has no chat template; set method.base_prompt to the base policy's "
            'system message, or to "none"'
        )
    content = [{"type": "image"}, {"type": "text", "text": _PROBE}]
    messages = [{"role": "user", "content": content}]
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    # A template is a program of the model's authors. It may raise any exception.
    except Exception as error:
        raise PolicyError(f"the model's chat template fails for an image: {error}") from error
    image = tokens.image_start + tokens.image + tokens.image_end
    opening, closing = f"{tokens.start}system\n", f"{tokens.end}\n"
    question = f"{tokens.start}user\n{image}{_PROBE}{closing}{tokens.start}assistant\n"
    system = text.removesuffix(question)
    if text == question:
        return ""
    if system == text or not (system.startswith(opening) and system.endswith(closing)):
        raise PolicyError(
            f"the model's chat template does not write the layout of policy.family: {text[:200]!r};"
            " set method.base_prompt to the base policy's system message"
        )
    return system.removeprefix(opening).removesuffix(closing)
