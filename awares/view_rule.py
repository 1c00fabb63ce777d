"""The rule by which an environment chooses the resolution of its views.

At full resolution, the processor multiplies each side of an image by a scale s, so that the image
has at most max_pixels pixels. If the image already fits, s is 1. The rules are:

    "relative"  the low view has the scale low_ratio * s; a crop has the scale crop_scale * s,
                but at most 1
    "paper"     the low view has the scale low_ratio; a crop keeps native pixels
    "released"  like "paper", with the crop boxes of the authors' script; an image with a side
                above 20,000 pixels is first reduced until its longer side has 20,000 pixels

The scales refer to the ORIGINAL image, from which every view is cut. By the rule "relative" with a
crop_scale of 1, a crop of a quarter of the image costs about a quarter of the full image's tokens.
By the other rules, a crop can cost as many tokens as the full image: the processor shrinks a very
large image, its low view and its crops to about the same number of tokens.
"""

import math
from dataclasses import dataclass
from typing import Literal

from awares.crops import Box, CropId, crop_box
from awares.tokens import Size, VisionLimits
from awares.view import View, full_view

Views = Literal["relative", "paper", "released"]
"""The name of the rule for the resolution of views."""

_SCRIPT_CROP = 100
_SCRIPT_SIDE = 20_000


@dataclass(frozen=True, slots=True)
class ViewRule:
    """Chooses the resolution of the low view and of each region.

    Example:
        ViewRule(max_pixels=50_176).low((448, 448))  # View(None, scale=0.5)
    """

    views: Views = "relative"
    """The name of the rule."""
    crop_scale: float | None = 1.0
    """The ratio of a region's side in its view to the region's side in the full-resolution image.

    With 1, a quarter of the image costs about a quarter of the full image's tokens. With None, a
    region keeps native pixels. Only the rule "relative" uses this value.
    """
    max_pixels: int = VisionLimits().max_pixels
    """The processor's limit on the pixels of an image."""

    def low(self, size: Size) -> View:
        """Return the low-resolution view of an image of `size`."""
        return View(None, self._scale(size))

    def region(self, box: Box, size: Size) -> View:
        """Return the view of the region `box` of an image of `size`."""
        if self.views != "relative":
            return View(box, self._scale(size))
        if self.crop_scale is None:
            return View(box)
        # Return a view of the whole image at native pixels, so that only the processor shrinks it.
        # The view then costs exactly as many tokens as the full image.
        if self.crop_scale >= 1.0 and box == full_view(size).box:
            return full_view(size)
        return View(box, min(1.0, self.crop_scale * self._scale(size)))

    def crop(self, crop: CropId, size: Size) -> View:
        """Return the view of one of the ten crops of an image of `size`."""
        box = script_box(crop, size) if self.views == "released" else crop_box(crop, size)
        return self.region(box, size)

    def _scale(self, size: Size) -> float:
        """Return the scale of a view before `low_ratio` or `crop_scale` multiplies it."""
        if self.views == "relative":
            return min(1.0, math.sqrt(self.max_pixels / (size[0] * size[1])))
        return min(1.0, _SCRIPT_SIDE / max(size)) if self.views == "released" else 1.0


RELATIVE = ViewRule()
"""The rule "relative" with the default `crop_scale` and the processor's default `max_pixels`."""


def script_box(crop: CropId, size: Size) -> Box:
    """Return the box of `crop` as the authors' released script computes it.

    Half of a side is rounded down, but is at least 100 pixels. `awares.crops.crop_box` rounds up,
    and has no minimum.
    """
    left, top, right, bottom = crop_box(crop, size)
    (x0, x1), (y0, y1) = (
        _script_span(start, end, side)
        for start, end, side in ((left, right, size[0]), (top, bottom, size[1]))
    )
    return x0, y0, x1, y1


def _script_span(start: int, end: int, side: int) -> tuple[int, int]:
    if (start, end) == (0, side):
        return 0, side
    length = min(max(_SCRIPT_CROP, side // 2), side)
    if start == 0:
        return 0, length
    if end == side:
        return side - length, side
    first = (side - length) // 2
    return first, first + length
