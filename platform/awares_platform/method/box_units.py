"""Tells in which units a grounding model writes its boxes, and converts the boxes to pixels.

A model is asked for coordinates from 0 to 1000. Some models write pixels or fractions of the image
instead. A wrong guess would be a wrong crop, so all replies of a batch are looked at together:

- A reply admits a unit if, in this unit, all of its boxes lie in the image.
- A reply that admits only one unit shows in which unit the model writes.
- A reply that admits several units is read in the unit that the other replies of the batch show. If
  they show none, the reply is read in the unit in which the model usually writes.
- A reply is refused if its unit is still unclear. No box is cut to fit into the image.
"""

import math
from collections.abc import Mapping, Sequence
from enum import StrEnum

from awares.crops import Box
from awares.tokens import Size
from awares_platform.method.box_reply import DrawnBoxes, Quad
from awares_platform.method.spoken import Unreadable


class BoxUnit(StrEnum):
    """A unit of coordinates. The value is the name in the configuration."""

    FRACTIONS = "fractions"
    THOUSANDTHS = "thousandths"
    PIXELS = "pixels"


_PIXEL_MODELS = ("qwen2.5-vl", "qwen2_5-vl", "qwen2.5vl")
"""Substrings of the names of models that write pixels, even if they are asked for thousandths."""
_SHOWN_SHARE = 0.25
"""The smallest share of pixel-only replies in a batch that is in pixels.

The share is relative to the replies that can be in pixels. A reply with a coordinate above 1000 is
pixel-only. On large images, a model that writes pixels gives many such replies. A batch with a
reply that can only be in thousandths is never in pixels.
"""
_STRAY_SHARE = 0.02
"""The largest share of pixel-only replies that counts as mistakes of the model.

The share is relative to the replies that can be in pixels. The rule applies only to a model that
usually writes thousandths.
"""


def usual_unit(model: str) -> BoxUnit | None:
    """Return thousandths, for which the prompt asks, or None if `model` may write pixels."""
    name = model.lower().replace("_", "-")
    return None if any(part in name for part in _PIXEL_MODELS) else BoxUnit.THOUSANDTHS


def admitted(boxes: Sequence[Quad], size: Size) -> frozenset[BoxUnit]:
    """Return the units in which all `boxes` lie in an image of `size` (width, height)."""
    far_x = max((box[2] for box in boxes), default=0.0)
    far_y = max((box[3] for box in boxes), default=0.0)
    if any(edge < 0 for box in boxes for edge in box):
        return frozenset()
    limits = {
        BoxUnit.FRACTIONS: (1.0, 1.0),
        BoxUnit.THOUSANDTHS: (1000.0, 1000.0),
        BoxUnit.PIXELS: (float(size[0]), float(size[1])),
    }
    units = {unit for unit, (x, y) in limits.items() if far_x <= x and far_y <= y}
    broken = any(edge != int(edge) for box in boxes for edge in box)
    if BoxUnit.FRACTIONS in units and broken:
        return frozenset({BoxUnit.FRACTIONS})
    return frozenset(units)


def inside(drawn: DrawnBoxes, size: Size) -> DrawnBoxes:
    """Drop each box that lies outside the image in all units.

    Raises Unreadable if no box remains.
    """
    kept = tuple(box for box in drawn.boxes if admitted([box], size))
    outside = tuple(f"{list(box)} is outside" for box in drawn.boxes if box not in kept)
    if outside and not kept:
        raise Unreadable("outside", f"the oracle's box {outside[0]} the image of {size} pixels")
    return DrawnBoxes(kept, drawn.dropped + outside)


def batch_unit(
    replies: Sequence[tuple[DrawnBoxes, Size]], usual: BoxUnit | None
) -> Mapping[frozenset[BoxUnit], BoxUnit | None]:
    """Return the unit of each kind of reply. The kind is the set of units that a reply admits.

    `usual` is the model's usual unit. Replies with the unit None must be refused.
    """
    kinds = [admitted(drawn.boxes, size) for drawn, size in replies if drawn.boxes]
    only = {unit: kinds.count(frozenset({unit})) for unit in BoxUnit}
    return {kind: _chosen(kind, kinds, only, usual) for kind in set(kinds)}


def _chosen(
    kind: frozenset[BoxUnit],
    kinds: Sequence[frozenset[BoxUnit]],
    only: Mapping[BoxUnit, int],
    usual: BoxUnit | None,
) -> BoxUnit | None:
    doubtful = sum({BoxUnit.THOUSANDTHS, BoxUnit.PIXELS} <= one for one in kinds)
    pixels = only[BoxUnit.PIXELS] / max(only[BoxUnit.PIXELS] + doubtful, 1)
    stray = 0 < pixels <= _STRAY_SHARE and usual is BoxUnit.THOUSANDTHS
    if len(kind) < 2:
        return None if not kind or (stray and BoxUnit.PIXELS in kind) else next(iter(kind))
    if BoxUnit.FRACTIONS in kind:  # All edges are 0 or 1, such as in the box of the whole image.
        others = only[BoxUnit.THOUSANDTHS] + only[BoxUnit.PIXELS] + doubtful
        return BoxUnit.FRACTIONS if only[BoxUnit.FRACTIONS] > others else None
    if stray or not only[BoxUnit.PIXELS]:
        return BoxUnit.THOUSANDTHS if only[BoxUnit.THOUSANDTHS] else usual
    settled = pixels >= _SHOWN_SHARE and not only[BoxUnit.THOUSANDTHS]
    return BoxUnit.PIXELS if settled else None


def pixel_boxes(drawn: DrawnBoxes, unit: BoxUnit, size: Size) -> tuple[Box, ...]:
    """Convert boxes that lie in the image to pixels of an image of `size` (width, height).

    A box covers each pixel that it touches.
    """
    width, height = size
    scales = {
        BoxUnit.FRACTIONS: (width, height),
        BoxUnit.THOUSANDTHS: (width / 1000, height / 1000),
        BoxUnit.PIXELS: (1, 1),
    }
    x, y = scales[unit]
    spans = [
        (_span(left * x, right * x, width), _span(top * y, bottom * y, height))
        for left, top, right, bottom in drawn.boxes
    ]
    return tuple((left, top, right, bottom) for (left, right), (top, bottom) in spans)


def _span(first: float, last: float, length: int) -> tuple[int, int]:
    """Return the start and the end of the range of pixels that `first` to `last` touches.

    Rounding removes floating-point errors. The range has at least one pixel of the image.
    """
    start = min(math.floor(round(first, 6)), length - 1)
    return start, max(min(math.ceil(round(last, 6)), length), start + 1)
