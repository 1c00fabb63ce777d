"""Counts the tokens of an episode: text, low-resolution view, returned crop, sampled tokens."""

from dataclasses import dataclass

from awares.crops import CropId
from awares.tokens import VisionLimits, visual_tokens
from awares.view import View, full_view, view_size
from awares_platform.config.engine import EngineConfig
from awares_platform.config.largest_request import (
    CHARACTERS_PER_TOKEN,
    IMAGE,
    REPLY,
    LargestRequest,
    largest,
)
from awares_platform.config.method import MethodConfig
from awares_platform.method.environment import system_prompt
from awares_platform.plan.assumptions import Assumptions


@dataclass(frozen=True, slots=True)
class Lengths:
    """Numbers of tokens in the parts of an episode.

    Example:
        Lengths(
            text=140, reply=18, low=520, crop=520, full=1989, answer=16, call_rate=0.29,
            widest=5309, largest=LargestRequest(163, 4096, 26, 1024, 5),
        )
    """

    text: int
    """Prompt without its image."""
    reply: int
    """Reply to a crop request, without the visual tokens of the crop."""
    low: int
    """Visual tokens of the low-resolution view."""
    crop: int
    """Visual tokens of a typical crop."""
    full: int
    """Visual tokens of the whole image."""
    answer: int
    """Sampled tokens of one assistant turn."""
    call_rate: float
    """Share of episodes that ask for a crop."""
    widest: int
    """Tokens of the longest episode within the budget, at most engine.max_model_len."""
    largest: LargestRequest
    """Longest episode within the budget, even if engine.max_model_len is smaller."""

    @property
    def prompt(self) -> int:
        """The number of tokens of the first turn's prompt: the text and the low-resolution view."""
        return self.text + self.low

    @property
    def called(self) -> int:
        """The number of tokens of an episode with a request: prompt, request, reply and answer."""
        return self.plain + self.reply + self.crop + self.answer

    @property
    def plain(self) -> int:
        """The number of tokens of an episode without a request: prompt and answer."""
        return self.prompt + self.answer

    @property
    def sampled(self) -> float:
        """The number of sampled tokens of an average episode."""
        return self.answer * (1 + self.call_rate)

    @property
    def visual(self) -> float:
        """The number of visual tokens of an average episode."""
        return self.low + self.call_rate * self.crop

    @property
    def mean(self) -> float:
        """The total number of tokens of an average episode."""
        return self.plain + self.call_rate * (self.called - self.plain)

    @property
    def rtr(self) -> float:
        """The retained token ratio of an average episode.

        The ratio is the episode's visual tokens divided by the visual tokens of the whole image.
        """
        return self.visual / self.full


def lengths(
    method: MethodConfig,
    engine: EngineConfig,
    max_tokens: int,
    limits: VisionLimits,
    assumed: Assumptions,
) -> Lengths:
    """Count the tokens of an episode.

    `max_tokens` is grpo.max_tokens, the maximum number of sampled tokens per turn. `limits` are the
    size limits of the policy's image processor.
    """
    size, rule = assumed.image_size, method.rule

    def tokens(view: View) -> int:
        return visual_tokens(view_size(view, size, method.low_ratio), limits)

    prompt = system_prompt(method)
    text = len(prompt) // CHARACTERS_PER_TOKEN + assumed.question_tokens
    most = largest(method, max_tokens, prompt)
    return Lengths(
        text=text,
        reply=REPLY + IMAGE,
        low=tokens(rule.low(size)),
        crop=tokens(rule.crop(CropId(assumed.crop), size)),
        full=tokens(full_view(size)),
        answer=assumed.answer_tokens,
        call_rate=assumed.call_rate if method.max_turns > 1 else 0.0,
        widest=min(engine.max_model_len, most.tokens),
        largest=most,
    )
