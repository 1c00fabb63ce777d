"""Computes the boxes of the ten crops of an image, and maps evidence boxes to crops.

Boxes are in native pixels of the ORIGINAL image. Half of an odd side is rounded up, so opposite
crops share a row or column.
"""

from collections.abc import Sequence
from enum import StrEnum
from itertools import combinations, pairwise
from typing import Literal, get_args

from awares.errors import ConfigError

Box = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels of the original image. Right and bottom are exclusive."""

CropMapping = Literal["min_cover", "iou", "coverage"]
"""The name of the rule by which `target_crops` maps evidence boxes to crops."""


class CropId(StrEnum):
    """One of the ten crops. Its value is the id that the policy writes (paper, supplement 7.3)."""

    TOP_LEFT = "0"
    TOP_RIGHT = "1"
    BOTTOM_LEFT = "2"
    BOTTOM_RIGHT = "3"
    CENTER = "4"
    TOP = "5"
    BOTTOM = "6"
    LEFT = "7"
    RIGHT = "8"
    ALL = "all"


# The area of each crop, in quarters of the image.
_QUARTERS = (
    dict.fromkeys(CropId, 1)
    | dict.fromkeys((CropId.TOP, CropId.BOTTOM, CropId.LEFT, CropId.RIGHT), 2)
    | {CropId.ALL: 4}
)
_LEFTMOST = frozenset((CropId.TOP_LEFT, CropId.BOTTOM_LEFT, CropId.LEFT))
_RIGHTMOST = frozenset((CropId.TOP_RIGHT, CropId.BOTTOM_RIGHT, CropId.RIGHT))
_TOPMOST = frozenset((CropId.TOP_LEFT, CropId.TOP_RIGHT, CropId.TOP))
_BOTTOMMOST = frozenset((CropId.BOTTOM_LEFT, CropId.BOTTOM_RIGHT, CropId.BOTTOM))


def _subsets() -> tuple[tuple[CropId, ...], ...]:
    """Return every non-empty subset of the crops, in the order in which `min_cover` prefers them.

    The subsets are sorted by area, then by the number of crops, then by the order of `CropId`.
    """
    order = {crop: index for index, crop in enumerate(CropId)}
    subsets = [
        subset for size in range(1, len(CropId) + 1) for subset in combinations(CropId, size)
    ]
    subsets.sort(
        key=lambda subset: (
            sum(_QUARTERS[crop] for crop in subset),
            len(subset),
            [order[crop] for crop in subset],
        )
    )
    return tuple(subsets)


_PREFERENCE = _subsets()


def crop_box(crop: CropId, size: tuple[int, int]) -> Box:
    """Return the box of `crop` in an image of `size`. Width and height must be at least 1."""
    width, height = size
    left, right = _span(width, crop in _LEFTMOST, crop in _RIGHTMOST, crop is CropId.CENTER)
    top, bottom = _span(height, crop in _TOPMOST, crop in _BOTTOMMOST, crop is CropId.CENTER)
    return left, top, right, bottom


def _span(side: int, first: bool, last: bool, middle: bool) -> tuple[int, int]:
    """Return the start and the end of a crop along one side of the image, in pixels.

    The crop takes the first, last or middle half of the side, or the whole side.
    """
    half = (side + 1) // 2
    if first:
        return 0, half
    if last:
        return side - half, side
    if middle:
        start = (side - half) // 2
        return start, start + half
    return 0, side


def area_fraction(crops: Sequence[CropId]) -> float:
    """Return the sum of the crops' shares of the image's area. Overlaps count twice.

    The shares ignore rounding: a quadrant or the center counts 0.25, a half 0.5, and the whole
    image 1.
    """
    return sum(_QUARTERS[crop] for crop in crops) / 4


def clamp(box: Box, size: tuple[int, int]) -> Box:
    """Return `box` cut to an image of `size`.

    The result is at least one pixel wide and high, even if `box` is empty or outside the image.
    """
    width, height = size
    left, top = min(max(box[0], 0), width - 1), min(max(box[1], 0), height - 1)
    return left, top, max(min(box[2], width), left + 1), max(min(box[3], height), top + 1)


def pad(box: Box, size: tuple[int, int], padding: float) -> Box:
    """Return `box`, enlarged on each side by `padding` times its width or height, and clamped."""
    grow_x, grow_y = round((box[2] - box[0]) * padding), round((box[3] - box[1]) * padding)
    return clamp((box[0] - grow_x, box[1] - grow_y, box[2] + grow_x, box[3] + grow_y), size)


def area(box: Box) -> int:
    """Return the number of pixels inside `box`, which is 0 for an empty box."""
    return max(box[2] - box[0], 0) * max(box[3] - box[1], 0)


def overlap(first: Box, second: Box) -> int:
    """Return the number of pixels that lie in both boxes."""
    return area(
        (
            max(first[0], second[0]),
            max(first[1], second[1]),
            min(first[2], second[2]),
            min(first[3], second[3]),
        )
    )


def union_area(boxes: Sequence[Box]) -> int:
    """Return the number of pixels that lie in at least one of `boxes`."""
    columns = sorted({edge for box in boxes for edge in (box[0], box[2])})
    rows = sorted({edge for box in boxes for edge in (box[1], box[3])})
    cells = [
        (left, top, right, bottom)
        for left, right in pairwise(columns)
        for top, bottom in pairwise(rows)
    ]
    return sum(area(cell) for cell in cells if any(overlap(cell, box) for box in boxes))


def coverage(box: Box, crop: Box) -> float:
    """Return the share of the area of `box` that lies inside `crop`. `box` must not be empty."""
    return overlap(box, crop) / area(box)


def iou(first: Box, second: Box) -> float:
    """Return the intersection over union of two boxes, 0 to 1. At least one must not be empty."""
    shared = overlap(first, second)
    return shared / (area(first) + area(second) - shared)


def min_cover(
    boxes: Sequence[Box],
    size: tuple[int, int],
    *,
    tau: float = 0.9,
    padding: float = 0.03,
    allow_all: bool = True,
) -> tuple[CropId, ...]:
    """Return the crops with the smallest total area that cover every box.

    - Each box is first enlarged on each side by the share `padding` of its width or height.
    - A box is covered if ONE crop contains at least the share `tau` of its area.
    - Of several sets with the same area, the set with the fewest crops wins, then the first in the
      order of `CropId`.
    - Without boxes, the result is `all`.
    - If `allow_all` is false, the result is top and bottom in two cases: there are no boxes, or
      only `all` covers one of the boxes.

    Example:
        min_cover([(4, 4, 20, 20)], (112, 112))  # (CropId.TOP_LEFT,)
    """
    fallback = (CropId.ALL,) if allow_all else (CropId.TOP, CropId.BOTTOM)
    if not boxes:
        return fallback
    usable = [crop for crop in CropId if allow_all or crop is not CropId.ALL]
    covering = [frozenset(_covering(pad(box, size, padding), size, usable, tau)) for box in boxes]
    if not all(covering):
        return fallback
    return next(
        subset for subset in _PREFERENCE if all(not crops.isdisjoint(subset) for crops in covering)
    )


def _covering(box: Box, size: tuple[int, int], crops: Sequence[CropId], tau: float) -> list[CropId]:
    return [crop for crop in crops if coverage(box, crop_box(crop, size)) >= tau]


def target_crops(
    boxes: Sequence[Box],
    size: tuple[int, int],
    mapping: str = "min_cover",
    *,
    tau: float = 0.9,
    padding: float = 0.03,
    allow_all: bool = True,
) -> tuple[CropId, ...]:
    """Return the crops that show the evidence `boxes`. `mapping` names the rule of selection.

    - `min_cover` calls the function `min_cover`.
    - `iou` is the paper's rule. It selects each crop whose IoU with the bounding box of all boxes
      is at least `tau` (0.5 in the paper). Small evidence therefore gets no crop.
    - `coverage` enlarges each box, and selects each crop that contains the share `tau` of the box.
      It selects `all` only for a box that no smaller crop covers.

    Without boxes, every rule returns the result of `min_cover`. Raises ConfigError for an unknown
    rule.
    """
    if mapping not in get_args(CropMapping):
        raise ConfigError(
            f"method.mapping is {mapping!r}; use one of {', '.join(get_args(CropMapping))}"
        )
    usable = [crop for crop in CropId if allow_all or crop is not CropId.ALL]
    if mapping == "min_cover" or not boxes:
        return min_cover(boxes, size, tau=tau, padding=padding, allow_all=allow_all)
    if mapping == "iou":
        union = _bounding(boxes, size)
        return tuple(crop for crop in usable if iou(union, crop_box(crop, size)) >= tau)
    chosen: set[CropId] = set()
    for box in boxes:
        held = _covering(pad(box, size, padding), size, usable, tau)
        chosen.update([crop for crop in held if crop is not CropId.ALL] or held)
    return tuple(crop for crop in CropId if crop in chosen)


def _bounding(boxes: Sequence[Box], size: tuple[int, int]) -> Box:
    clamped = [clamp(box, size) for box in boxes]
    lefts, tops, rights, bottoms = zip(*clamped, strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)
