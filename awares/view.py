"""Views: regions that a policy saw. An episode records views; their pixels are cut on demand."""

from dataclasses import dataclass

from awares.crops import Box, CropId, clamp, crop_box


@dataclass(frozen=True, slots=True)
class View:
    """An image that the policy saw, as a function of the original.

    `box` None is the low-resolution view: the whole image, each side times the method's low ratio.
    Otherwise the view is that region, each side times `scale`; 1 keeps native pixels.

    Example:
        View(None), View((0, 0, 56, 56)), View((0, 0, 112, 112), scale=0.25)
    """

    box: Box | None = None
    scale: float = 1.0


def crop_view(crop: CropId, size: tuple[int, int]) -> View:
    """The view of one crop of an image of `size`, at native pixels."""
    return View(crop_box(crop, size))


def full_view(size: tuple[int, int]) -> View:
    """The whole image at native pixels."""
    return View((0, 0, *size))


def view_size(view: View, size: tuple[int, int], low_ratio: float = 0.5) -> tuple[int, int]:
    """Width and height in pixels of a view of an image of `size`, before the processor resizes it.

    Sides are rounded down, to at least 1.
    """
    if view.box is None:
        return _scaled(size, low_ratio)
    left, top, right, bottom = clamp(view.box, size)
    return _scaled((right - left, bottom - top), view.scale)


def _scaled(size: tuple[int, int], ratio: float) -> tuple[int, int]:
    return max(1, int(size[0] * ratio)), max(1, int(size[1] * ratio))
