"""A view describes one picture that a policy sees: a region of an image, and a resolution.

An episode records views without pixels. The pixels are cut from the original image on demand.
"""

from dataclasses import dataclass

from awares.carried import Carried
from awares.crops import Box, CropId, clamp, crop_box


@dataclass(frozen=True, slots=True)
class View(Carried):
    """Describes one picture that the policy sees, by a region of the original image and a scale.

    Example:
        View(None), View((0, 0, 56, 56)), View((0, 0, 112, 112), scale=0.25)
    """

    box: Box | None = None
    """The region, or None for the whole image at low resolution."""
    scale: float = 1.0
    """Multiplies each side of the view. With 1, a region keeps its native pixels.

    Each side of the low-resolution view is also multiplied by the method's low ratio.
    """


@dataclass(frozen=True, slots=True)
class ImageView(Carried):
    """A view of one image. Together with a run's settings, these fields determine the pixels.

    `image` is the hash of the image file. `image_size` is the image's width and height in pixels.

    Example:
        ImageView("9f2c...", (112, 112), View())
    """

    image: str
    image_size: tuple[int, int]
    view: View


def crop_view(crop: CropId, size: tuple[int, int]) -> View:
    """Return the view of one crop of an image of `size`, at native pixels."""
    return View(crop_box(crop, size))


def full_view(size: tuple[int, int]) -> View:
    """Return the view of a whole image of `size`, at native pixels."""
    return View((0, 0, *size))


def view_size(view: View, size: tuple[int, int], low_ratio: float = 0.5) -> tuple[int, int]:
    """Return the width and height of a view in pixels, before the processor resizes the view.

    `size` is the size of the original image. Sides are rounded down, but are at least 1.
    """
    if view.box is None:
        return _scaled(size, low_ratio * view.scale)
    left, top, right, bottom = clamp(view.box, size)
    return _scaled((right - left, bottom - top), view.scale)


def _scaled(size: tuple[int, int], ratio: float) -> tuple[int, int]:
    return max(1, int(size[0] * ratio)), max(1, int(size[1] * ratio))
