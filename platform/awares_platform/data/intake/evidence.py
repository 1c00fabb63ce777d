"""Reads the boxes around the evidence for an answer, in any of several units and formats."""

import json
import math
from collections.abc import Sequence
from typing import Any

from awares.crops import Box
from awares.tokens import Size
from awares_platform.config.imports import ImportsConfig
from awares_platform.data.intake.refusal import Refused

_REASON = "wrong box"


def read_boxes(
    value: Any, settings: ImportsConfig, original: Size, stored: Size
) -> tuple[Box, ...]:
    """Convert one box or a list of boxes to pixels of the stored image.

    If `value` is in pixels, it refers to `original`, the image size before the import shrank it.
    `stored` is the size of the stored image.

    Raises Refused if a box is not four finite numbers, lies outside the image, or seems to have
    another unit than `imports.box_units`.
    """
    if isinstance(value, str):
        value = _parsed(value)
    if value is None or value == [] or value == "":
        return ()
    if not isinstance(value, list):
        raise Refused(_REASON, f"{value!r} is no list of numbers"[:200])
    boxes = [value] if not isinstance(value[0], list) else value
    return tuple(_box(box, settings, original, stored) for box in boxes)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text) if text.strip() else None
    except ValueError as error:
        raise Refused(_REASON, f"{text!r} is no JSON"[:200]) from error


def _box(box: Any, settings: ImportsConfig, original: Size, stored: Size) -> Box:
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
        raise Refused(_REASON, f"{box!r} is not four finite numbers"[:200])
    left, top, right, bottom = box
    if settings.box_form == "sizes":
        right, bottom = left + right, top + bottom
    _check_units((left, top, right, bottom), settings.box_units)
    full = {"pixels": original, "relative": (1, 1), "thousandths": (1000, 1000)}[settings.box_units]
    across, down = stored[0] / full[0], stored[1] / full[1]
    result = (
        max(0, math.floor(left * across)),
        max(0, math.floor(top * down)),
        min(stored[0], math.ceil(right * across)),
        min(stored[1], math.ceil(bottom * down)),
    )
    if not (left < right and top < bottom and result[0] < result[2] and result[1] < result[3]):
        raise Refused(_REASON, f"{box} has no area in an image of {original[0]} x {original[1]}")
    return result


def _is_number(edge: Any) -> bool:
    if isinstance(edge, bool) or not isinstance(edge, int | float):
        return False
    return math.isfinite(edge)


def _check_units(edges: Sequence[float], units: str) -> None:
    """Raise Refused if the box's numbers show that it has another unit than `units`."""
    if units == "pixels" and max(edges) <= 1:
        raise Refused(_REASON, f'{edges} looks relative; set imports.box_units="relative"')
    if units == "relative" and max(edges) > 1.05:
        raise Refused(_REASON, f'{edges} is over 1; set imports.box_units="pixels"')
    if units == "thousandths" and max(edges) > 1050:
        raise Refused(_REASON, f'{edges} is over 1000; set imports.box_units="pixels"')
