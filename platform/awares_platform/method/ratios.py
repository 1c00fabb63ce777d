"""Computes the retained token ratio (RTR) of the configured views on the images of a data set.

The RTR of an image is the number of visual tokens of all views, divided by the number of visual
tokens of the full image. It depends only on the size of the image, so it is known before any policy
plays. If the low view alone costs almost as much as the full image, no policy can save many visual
tokens.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, quantiles

from awares.environment import Environment, Malformed, Request, readable
from awares.episode_spec import grant
from awares.family import ModelFamily
from awares.tokens import Size, rtr_token
from awares.view import view_size
from awares_platform.config.method import MethodConfig
from awares_platform.method.environment import (
    environment,
    episode_budget,
    episode_spec,
    greedy,
    vision_limits,
)

log = logging.getLogger(__name__)

MOST = {"low": 0.3, "crop": 0.6}
"""The largest mean RTR that causes no warning.

"low" is for the low view alone, and "crop" for the low view with one crop.
"""

_NAMES = {"low": "low view", "crop": "low view and one crop", "whole": "low view and whole image"}


@dataclass(frozen=True, slots=True)
class Ratios:
    """The retained token ratio (RTR) of each image, for three sets of views.

    Example:
        Ratios(low=(0.25, 0.26), crop=(0.5, 0.52), whole=(1.25, 1.26), closed=0)
    """

    low: tuple[float, ...]
    """The RTR of each image if the policy sees only the low view."""
    crop: tuple[float, ...]
    """The RTR of each image if the policy also sees the environment's first region.

    This region is by default a quarter of the image.
    """
    whole: tuple[float, ...]
    """The RTR of each image if the policy sees the low view and the whole image."""
    closed: int
    """Number of images for which method.max_visual_tokens allows no region beside the low view."""

    @property
    def mean(self) -> dict[str, float]:
        """The mean RTR over the images, for each set of views."""
        return {name: fmean(getattr(self, name)) for name in _NAMES}

    def __str__(self) -> str:
        parts = [f"{text} {_spread(getattr(self, name))}" for name, text in _NAMES.items()]
        count = len(self.low)
        return f"RTR over {count:,} image{'s' * (count != 1)}: {', '.join(parts)}"

    @property
    def warnings(self) -> list[str]:
        """One message for each set of views whose mean RTR is above its limit in `MOST`.

        A further message states the number of images for which all requests are malformed.
        """
        high = [
            f"{_NAMES[name]}: mean RTR {self.mean[name]:.2f}, more than {most:g}; "
            'set method.views="relative", raise method.max_pixels, or lower method.min_pixels, '
            "method.low_ratio or method.crop_scale"
            for name, most in MOST.items()
            if self.mean[name] > most
        ]
        return high if not self.closed else [*high, self._closed_warning]

    @property
    def _closed_warning(self) -> str:
        return (
            f"{self.closed:,} of {len(self.low):,} images: no region fits into "
            "method.max_visual_tokens beside the low view, so every request is malformed; raise "
            "this key, or lower method.low_ratio or method.max_pixels"
        )


def ratios(sizes: Sequence[Size], method: MethodConfig, family: ModelFamily) -> Ratios:
    """Return the RTRs of images of the given sizes. There must be at least one size."""
    asked, limits = environment(method), vision_limits(method, family)

    def cost(size: Size, request: Request | None) -> float:
        views = [asked.first_view(size), *(asked.views(request, size) if request else ())]
        return rtr_token([view_size(view, size, method.low_ratio) for view in views], size, limits)

    def is_closed(size: Size) -> bool:
        first, whole = asked.first_view(size), asked.cover((), size)
        single = [readable(asked, (region,)) for region in asked.regions] or [_one(asked, size)]
        spec = episode_spec(method, family, greedy(1), asked, episode_budget(method, context=0))
        asks = [request for request in (*single, whole) if request is not None]
        return asked.max_turns > 1 and all(
            isinstance(grant(spec, request, [first], size), Malformed) for request in asks
        )

    return Ratios(
        low=tuple(cost(size, None) for size in sizes),
        crop=tuple(cost(size, _one(asked, size)) for size in sizes),
        whole=tuple(cost(size, asked.cover((), size)) for size in sizes),
        closed=sum(map(is_closed, sizes)),
    )


def log_ratios(sizes: Sequence[Size], method: MethodConfig, family: ModelFamily) -> None:
    """Log the RTRs of images of the given sizes, and warn if the views save too few tokens."""
    if not sizes:
        return
    found = ratios(sizes, method, family)
    log.info("%s", found)
    for text in found.warnings:
        log.warning("%s", text)


def _one(asked: Environment, size: Size) -> Request | None:
    """Return a request for the environment's first region.

    If the environment lists no regions, the request covers the top left quarter of the image. The
    result is None if the environment maps this quarter to no region.
    """
    corner = (0, 0, max(1, size[0] // 2), max(1, size[1] // 2))
    return readable(asked, asked.regions[:1]) or asked.cover([corner], size)


def _spread(values: Sequence[float]) -> str:
    """Return the mean as text.

    Unless all values are nearly equal, the text also has the 5th and the 95th percentile.
    """
    if max(values) - min(values) < 0.005:
        return f"{values[0]:.2f}"
    cuts = quantiles(values, n=20, method="inclusive")
    return f"{fmean(values):.2f} ({cuts[0]:.2f} to {cuts[-1]:.2f})"
