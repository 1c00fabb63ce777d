"""Turns views into the pixel values that the vision tower reads.

    image hash --decode--> image --render--> view --image processor--> pixel values and a grid

Axes of the tensors:
    I  views
    N  patches of all views
    D  pixel values of one patch
"""

from collections.abc import Callable, Sequence
from typing import Any

from PIL.Image import Image
from torch import Tensor

from awares.errors import PolicyError
from awares.images import render
from awares.tokens import VisionLimits
from awares.view import ImageView

Prepare = Callable[[Sequence[ImageView]], tuple[Tensor, Tensor]]
"""Returns the pixel values (N, D) and the grids (I, 3) of the given views, in their order."""

Remember = Callable[[Sequence[ImageView], Prepare], tuple[Tensor, Tensor]]
"""A cache of processed views. It returns what `Prepare` returns for the given views.

The cache calls `Prepare` only for views that it does not hold.
"""


def prepare(
    wanted: Sequence[ImageView],
    *,
    images: Callable[[str], Image],
    processor: Any,
    limits: VisionLimits,
    low_ratio: float,
) -> tuple[Tensor, Tensor]:
    """Return the pixel values (N, D) and the grids (I, 3) of the `wanted` views, in their order.

    Raises PolicyError if an image has another size than its view states.
    """
    rendered: dict[ImageView, Image] = {}
    for one in wanted:
        if one not in rendered:
            rendered[one] = _render(one, images, low_ratio)
    size = {"shortest_edge": limits.min_pixels, "longest_edge": limits.max_pixels}
    views = [rendered[one] for one in wanted]
    done = processor.image_processor(images=views, size=size, return_tensors="pt")
    return done["pixel_values"], done["image_grid_thw"]


def _render(wanted: ImageView, images: Callable[[str], Image], low_ratio: float) -> Image:
    image = images(wanted.image)
    if image.size != wanted.image_size:
        raise PolicyError(
            f"image {wanted.image} is {image.size}, the episode saw {wanted.image_size}; "
            "images must not change in the store"
        )
    return render(image, wanted.view, low_ratio)
