"""Visual tokens of a view, and the retained token ratio (RTR), counted as Qwen2.5-VL's processor does.

The resizing rule is that of `smart_resize` in transformers' image_processing_qwen2_vl.py: sides to whole multiples of patch * merge,
then the area into [min_pixels, max_pixels]. Small images are enlarged. The processor refuses aspect ratios above 200, which a half
of a long strip can reach, so such views are padded first (`padded_size`, applied to pixels by `awares.images.render`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from awares.errors import ConfigError

MAX_ASPECT = 200
"""The largest ratio of the longer to the shorter side that the processor takes."""

Size = tuple[int, int]
"""Width, height."""


@dataclass(frozen=True, slots=True)
class VisionLimits:
    """The processor's resolution limits: side of a patch, patches merged per side into one token, and the area bounds in pixels.

    Defaults are those of the authors' evaluation (paper's released script). Raises ConfigError when the bounds leave no image.

    Example:
        VisionLimits(min_pixels=28 * 28, max_pixels=448 * 448)
    """

    patch: int = 14
    merge: int = 2
    min_pixels: int = 32 * 28 * 28
    max_pixels: int = 2048 * 28 * 28

    def __post_init__(self) -> None:
        if self.patch < 1 or self.merge < 1:
            raise ConfigError(f"patch ({self.patch}) and merge ({self.merge}) must be at least 1")
        if self.min_pixels < 1:
            raise ConfigError(f"method.min_pixels is {self.min_pixels}; it must be at least 1")
        if self.max_pixels < max(self.min_pixels, self.unit**2):
            raise ConfigError(
                f"method.max_pixels is {self.max_pixels}; it must be at least min_pixels and one token ({self.unit**2})"
            )

    @property
    def unit(self) -> int:
        """Pixels along one side of a merged token."""
        return self.patch * self.merge


def padded_size(size: Size) -> Size:
    """`size` with the shorter side raised, where needed, so that the aspect ratio is at most 200."""
    least = math.ceil(max(size) / MAX_ASPECT)
    return max(size[0], least), max(size[1], least)


def resized(size: Size, limits: VisionLimits) -> Size:
    """The size to which the processor brings a view of `size` (after padding), both sides multiples of `limits.unit`."""
    width, height = padded_size(size)
    unit = limits.unit
    to_width, to_height = round(width / unit) * unit, round(height / unit) * unit
    if to_width * to_height > limits.max_pixels:
        shrink = math.sqrt((height * width) / limits.max_pixels)
        return max(unit, math.floor(width / shrink / unit) * unit), max(
            unit, math.floor(height / shrink / unit) * unit
        )
    if to_width * to_height < limits.min_pixels:
        grow = math.sqrt(limits.min_pixels / (height * width))
        return math.ceil(width * grow / unit) * unit, math.ceil(height * grow / unit) * unit
    return to_width, to_height


def visual_tokens(size: Size, limits: VisionLimits) -> int:
    """The number of image tokens that a view of `size` costs the language model.

    Example:
        visual_tokens((224, 224), VisionLimits(min_pixels=784))  # 64
    """
    width, height = resized(size, limits)
    return (width // limits.unit) * (height // limits.unit)


def rtr_token(views: Sequence[Size], full: Size, limits: VisionLimits) -> float:
    """Tokens of all views, each counted once, over the tokens of the full image."""
    return sum(visual_tokens(view, limits) for view in views) / visual_tokens(full, limits)


def rtr_pixel(views: Sequence[Size], full: Size) -> float:
    """The paper's ratio: pixels of all views before the processor, each counted once, over the pixels of the full image."""
    return sum(width * height for width, height in views) / (full[0] * full[1])
