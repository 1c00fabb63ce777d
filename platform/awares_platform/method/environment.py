"""Episodes as [method] describes them: the processor's limits and how an episode runs."""

from typing import Literal

from awares.episode import EpisodeSpec
from awares.generate import Sampling
from awares.tokens import VisionLimits
from awares_platform.config.method import MethodConfig


def vision_limits(method: MethodConfig) -> VisionLimits:
    """The bounds within which the processor resizes a view, in pixels."""
    return VisionLimits(min_pixels=method.min_pixels, max_pixels=method.max_pixels)


def episode_spec(
    method: MethodConfig,
    sampling: Sampling,
    *,
    view: Literal["low", "full"] = "low",
    reply: Literal["crops", "all"] = "crops",
    turns: int | None = None,
) -> EpisodeSpec:
    """The method's episode; `turns` None takes method.max_turns."""
    return EpisodeSpec(
        limits=vision_limits(method),
        low_ratio=method.low_ratio,
        max_turns=turns or method.max_turns,
        sampling=sampling,
        reply=reply,
        view=view,
        allow_all=method.allow_all,
    )


def greedy(max_tokens: int) -> Sampling:
    """Greedy sampling of at most `max_tokens` per turn."""
    return Sampling(max_tokens=max_tokens)
