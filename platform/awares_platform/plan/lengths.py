"""How many tokens an episode is: text, the low view, what a call returns, and what is sampled."""

from dataclasses import dataclass, replace

from awares.crops import CropId
from awares.tokens import visual_tokens
from awares.view import View, crop_view, full_view, view_size
from awares_platform.config import PlatformConfig
from awares_platform.method.environment import vision_limits
from awares_platform.plan.assumptions import Assumptions
from awares_platform.plan.geometry import Geometry

CHARACTERS_PER_TOKEN = 4
"""Of English text under Qwen's tokenizer, about; the prompt is counted without one, so that nothing need be downloaded."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens. `low`, `crop` and `full` are visual ones, counted as the processor does; `widest` is the longest sequence that may occur.

    Example:
        Lengths(text=200, low=1131, crop=1200, full=2013, answer=16, call_rate=0.29, widest=8192)
    """

    text: int
    low: int
    crop: int
    full: int
    answer: int
    call_rate: float
    widest: int

    @property
    def prompt(self) -> int:
        """Turn 1: text and the low view."""
        return self.text + self.low

    @property
    def called(self) -> int:
        """An episode with a call: prompt, request, crop, answer."""
        return self.prompt + self.crop + 2 * self.answer

    @property
    def sampled(self) -> float:
        """What an average episode samples."""
        return self.answer * (1 + self.call_rate)

    @property
    def visual(self) -> float:
        """Visual tokens of an average episode."""
        return self.low + self.call_rate * self.crop

    @property
    def mean(self) -> float:
        """An average episode in all."""
        return self.text + self.visual + self.sampled

    @property
    def rtr(self) -> float:
        """Retained token ratio of an average episode."""
        return self.visual / self.full


def lengths(config: PlatformConfig, shape: Geometry, assumed: Assumptions) -> Lengths:
    """Views are those of awares.view, tokens those of awares.tokens, limits those of [method] and [engine]."""
    method, engine = config.method, config.engine
    limits = replace(vision_limits(method), patch=shape.patch, merge=shape.merge)
    size = assumed.image_size

    def tokens(view: View) -> int:
        return visual_tokens(view_size(view, size, method.low_ratio), limits)

    text = len(method.system_prompt) // CHARACTERS_PER_TOKEN + assumed.question_tokens
    most = method.max_pixels // limits.unit**2
    answers = config.grpo.max_tokens * method.max_turns
    return Lengths(
        text=text,
        low=tokens(View(None)),
        crop=tokens(crop_view(CropId(assumed.crop), size)),
        full=tokens(full_view(size)),
        answer=assumed.answer_tokens,
        call_rate=assumed.call_rate if method.max_turns > 1 else 0.0,
        widest=min(engine.max_model_len, text + engine.max_images * most + answers),
    )
