"""Counts the visual tokens of a view, and computes the retained token ratio (RTR).

The counts follow the image processor of Qwen2.5-VL, whose rule is `smart_resize` in transformers'
image_processing_qwen2_vl.py. `smart_resize` rounds both sides to multiples of patch * merge. It
then reduces or enlarges the image until the area is between min_pixels and max_pixels.
`smart_resize` refuses aspect ratios above 200. The aspect ratio of a crop of a long and narrow
image can exceed 200, so such a crop is padded first. `padded_size` computes the new size, and
`awares.images.render` pads the pixels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from awares.errors import ConfigError

MAX_ASPECT = 200
"""The largest ratio of the longer side to the shorter side that the processor accepts."""

Size = tuple[int, int]
"""Width and height in pixels."""


@dataclass(frozen=True, slots=True)
class VisionLimits:
    """The limits of the processor. The defaults come from the authors' evaluation script.

    Raises ConfigError if a value is below 1, or if `max_pixels` is below `min_pixels` or below the
    area of one visual token.

    Example:
        VisionLimits(min_pixels=28 * 28, max_pixels=448 * 448)
    """

    patch: int = 14
    """The side of a patch in pixels."""
    merge: int = 2
    """`merge` x `merge` patches become one token."""
    min_pixels: int = 32 * 28 * 28
    """The smallest area of an image."""
    max_pixels: int = 2048 * 28 * 28
    """The largest area of an image."""

    def __post_init__(self) -> None:
        if self.patch < 1 or self.merge < 1:
            raise ConfigError(f"patch ({self.patch}) and merge ({self.merge}) must be at least 1")
        if self.min_pixels < 1:
            raise ConfigError(f"method.min_pixels is {self.min_pixels}; it must be at least 1")
        if self.max_pixels < max(self.min_pixels, self.unit**2):
            raise ConfigError(
                f"method.max_pixels is {self.max_pixels}; "
                f"it must be at least min_pixels and one token ({self.unit**2})"
            )

    @property
    def unit(self) -> int:
        """The side in pixels of the square that one visual token covers."""
        return self.patch * self.merge


def padded_size(size: Size) -> Size:
    """Return `size` with the shorter side lengthened until the aspect ratio is at most 200."""
    least = math.ceil(max(size) / MAX_ASPECT)
    return max(size[0], least), max(size[1], least)


def resized(size: Size, limits: VisionLimits) -> Size:
    """Return the size in pixels of a view of `size`, after padding and the processor's resizing.

    Both sides of the result are multiples of `limits.unit`.
    """
    width, height = padded_size(size)
    unit = limits.unit
    to_width, to_height = round(width / unit) * unit, round(height / unit) * unit
    if to_width * to_height > limits.max_pixels:
        shrink = math.sqrt((height * width) / limits.max_pixels)
        to_width = max(unit, math.floor(width / shrink / unit) * unit)
        to_height = max(unit, math.floor(height / shrink / unit) * unit)
        return to_width, to_height
    if to_width * to_height < limits.min_pixels:
        grow = math.sqrt(limits.min_pixels / (height * width))
        return math.ceil(width * grow / unit) * unit, math.ceil(height * grow / unit) * unit
    return to_width, to_height


def visual_tokens(size: Size, limits: VisionLimits) -> int:
    """Return the number of visual tokens that a view of `size` adds to the prompt.

    Example:
        visual_tokens((224, 224), VisionLimits(min_pixels=784))  # 64
    """
    width, height = resized(size, limits)
    return (width // limits.unit) * (height // limits.unit)


def rtr_token(views: Sequence[Size], full: Size, limits: VisionLimits) -> float:
    """Return the number of visual tokens of all views, divided by that of the full image."""
    return sum(visual_tokens(view, limits) for view in views) / visual_tokens(full, limits)


def rtr_pixel(views: Sequence[Size], full: Size) -> float:
    """Return the number of pixels of all views, divided by that of the full image.

    The paper reports this ratio. The pixels are counted before the processor resizes the views.
    """
    return sum(width * height for width, height in views) / (full[0] * full[1])
