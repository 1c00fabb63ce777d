"""Episodes as the configuration describes them."""

from typing import Literal

from awares.episode import EpisodeSpec
from awares.generate import Sampling
from awares.tokens import VisionLimits
from awares_platform.config import PlatformConfig


def vision_limits(config: PlatformConfig) -> VisionLimits:
    """The method's limits on what the processor makes of a view."""
    return VisionLimits(min_pixels=config.method.min_pixels, max_pixels=config.method.max_pixels)


def greedy_spec(
    config: PlatformConfig,
    max_tokens: int,
    *,
    view: Literal["low", "full"] = "low",
    reply: Literal["crops", "all"] = "crops",
    turns: int | None = None,
) -> EpisodeSpec:
    """The method's episode with greedy sampling; `turns` None takes method.max_turns."""
    method = config.method
    return EpisodeSpec(
        limits=vision_limits(config),
        low_ratio=method.low_ratio,
        max_turns=turns or method.max_turns,
        sampling=Sampling(max_tokens=max_tokens),
        reply=reply,
        view=view,
        allow_all=method.allow_all,
    )
