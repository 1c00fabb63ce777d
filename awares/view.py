"""A view: what the policy saw of an image, as a pure function of the original. Views travel; pixels do not."""

from dataclasses import dataclass

from awares.crops import Box, CropId, clamp, crop_box


@dataclass(frozen=True, slots=True)
class View:
    """An image that the policy saw: `box` None is the low-resolution view, else that region at native pixels.

    Example:
        View(None), View((0, 0, 56, 56))
    """

    box: Box | None = None


def crop_view(crop: CropId, size: tuple[int, int]) -> View:
    """The view that a crop request returns."""
    return View(crop_box(crop, size))


def full_view(size: tuple[int, int]) -> View:
    """The whole image at native pixels."""
    return View((0, 0, *size))


def view_size(view: View, size: tuple[int, int], low_ratio: float = 0.5) -> tuple[int, int]:
    """Width and height in pixels of a view of an image of `size`, before the processor; at least 1 x 1."""
    if view.box is None:
        return max(1, int(size[0] * low_ratio)), max(1, int(size[1] * low_ratio))
    left, top, right, bottom = clamp(view.box, size)
    return right - left, bottom - top
