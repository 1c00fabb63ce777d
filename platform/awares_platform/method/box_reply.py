"""Reads the boxes out of the reply of a grounding model, in the model's own coordinates.

The reader accepts the forms in which vision-language models write boxes:

    {"question": [[l, t, r, b], ...], "answer": [...]}      the form that the question asks for
    [{"bbox_2d": [l, t, r, b], "label": "total"}, ...]      Qwen's own form
    <|box_start|>(l, t),(r, b)<|box_end|>                   box tokens
    "l, t, r, b"   [[x, y], [x, y], ...]   {"x1": ..., ...}  texts, polygons and named edges

An unreadable box is dropped with a reason, and the others are kept.
"""

import ast
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from awares.errors import DataError
from awares_platform.method.spoken import spoken, unreadable

Quad = tuple[float, float, float, float]
"""The left, top, right and bottom edge of a box, in the coordinates of the model."""

_WHO = "oracle"
# The largest number of characters in a reply. A longer reply is refused.
LONGEST_REPLY = 20_000
_ATTEMPTS = 32
_DEPTH = 8
_LISTS = ("question", "answer")
_BOX_KEYS = ("bbox_2d", "bbox", "box", "boxes", "bboxes", "coordinates", "points", "polygon")
_GROUPS = ("evidence", "result", "results", "objects", "elements", "regions", "detections", "items")
_EDGES = (("x1", "y1", "x2", "y2"), ("left", "top", "right", "bottom"))
_EDGES += (("xmin", "ymin", "xmax", "ymax"), ("x_min", "y_min", "x_max", "y_max"))
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?"
_NUMBERS = re.compile(_NUMBER, re.IGNORECASE)
_ONLY_NUMBERS = re.compile(rf"[\s()\[\],;]*(?:{_NUMBER}[\s()\[\],;]*)+", re.IGNORECASE)
_TOKENS = re.compile(
    r"<\|?box(?:_start)?\|?>(.*?)<\|?/?box(?:_end)?\|?>", re.IGNORECASE | re.DOTALL
)
_OPENING = re.compile(r"[{\[]")
_SHOWN = 60


@dataclass(frozen=True, slots=True)
class DrawnBoxes:
    """The usable boxes of one reply. `dropped` holds a reason for each box that is not usable.

    Example:
        DrawnBoxes(((100, 200, 300, 400),), dropped=("[1, 2, 3] is not four numbers",))
    """

    boxes: tuple[Quad, ...]
    dropped: tuple[str, ...] = ()


def read_boxes(reply: str | None) -> DrawnBoxes:
    """Return the boxes of a reply. A reply with empty lists has no boxes, and is no error.

    A polygon becomes the box around it.

    Raises Unreadable if the reply is too long, has no list of boxes, or has only unusable boxes.

    Example:
        read_boxes('{"question": [], "answer": [[100, 200, 300, 400]]}').boxes
    """
    text = spoken(reply, _WHO)
    if len(text) > LONGEST_REPLY:
        raise unreadable(text, _WHO, f"at most {LONGEST_REPLY} characters long")
    tokens = _TOKENS.findall(text)
    for value in [tokens] if tokens else _values(text):
        if (found := _evidence(value)) is not None:
            return _checked(found, text)
    raise unreadable(text, _WHO, "a list of boxes")


def _checked(found: Sequence[Any], text: str) -> DrawnBoxes:
    boxes, dropped = [], []
    for value in found:
        try:
            boxes.append(_quad(value))
        except DataError as error:
            dropped.append(str(error))
    if dropped and not boxes:
        raise unreadable(text, _WHO, f"a list of usable boxes ({dropped[0]})")
    return DrawnBoxes(tuple(boxes), tuple(dropped))


def _values(text: str) -> Iterator[Any]:
    """Yield the lists and dictionaries that `text` contains, from left to right."""
    start = 0
    for _ in range(_ATTEMPTS):
        opened = _OPENING.search(text, start)
        if not opened:
            return
        start = opened.start() + 1
        if (end := _end(text, opened.start())) is None:
            continue
        try:
            value = _literal(text[opened.start() : end])
        except DataError:
            continue
        start = end
        yield value


def _end(text: str, start: int) -> int | None:
    """Return the index after the bracket that closes the bracket at `start`, or None."""
    depth, quote, index = 0, "", start
    while index < len(text):
        letter = text[index]
        if quote:
            index += letter == "\\"
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        elif letter in "([{":
            depth += 1
        elif letter in ")]}":
            depth -= 1
            if depth == 0:
                return index + 1
        index += 1
    return None


def _literal(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise DataError("no literal") from error


def _evidence(value: Any) -> list[Any] | None:
    """Return the possible boxes in `value`, or None if `value` does not look like boxes."""
    if isinstance(value, Mapping):
        return None if _parts_of(_named(value)) is None else list(_leaves(value))
    if isinstance(value, list | tuple) and (not value or any(map(_is_box_like, [value, *value]))):
        return list(_leaves(value))
    return None


def _is_box_like(part: Any) -> bool:
    if isinstance(part, Mapping):
        return _parts_of(_named(part)) is not None
    if isinstance(part, str):
        return bool(_ONLY_NUMBERS.fullmatch(part))
    return isinstance(part, list | tuple) and (_flat(part) or any(map(_is_box_like, part)))


def _leaves(value: Any, depth: int = 0) -> Iterator[Any]:
    """Yield each box in nested lists and dictionaries.

    Also yield each value that is no box, so that `_quad` can refuse the value with a reason.
    """
    if isinstance(value, Mapping) and depth < _DEPTH:
        parts = _parts_of(_named(value))
        yield from [value] if parts is None else _leaves(parts, depth + 1)
    elif not isinstance(value, list | tuple) or depth >= _DEPTH:
        yield from () if value is None else (value,)
    elif value and (_flat(value) or _are_points(value) or not any(map(_may_nest, value))):
        yield value
    else:
        for part in value:
            yield from _leaves(part, depth + 1)


def _may_nest(part: Any) -> bool:
    several = isinstance(part, str) and len(_NUMBERS.findall(part)) > 1
    return several or part is None or isinstance(part, Mapping | list | tuple)


def _named(value: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(key).strip().lower(): part for key, part in value.items()}


def _parts_of(named: Mapping[str, Any]) -> Any:
    """Return the coordinates of a box with named edges, or the values under known keys, or None."""
    for edges in _EDGES:
        if all(edge in named for edge in edges):
            return [named[edge] for edge in edges]
    for names in (_LISTS, _BOX_KEYS, _GROUPS):
        if found := [named[name] for name in names if name in named]:
            return found
    return None


def _flat(value: Sequence[Any]) -> bool:
    return len(value) >= 4 and all(_number(part) is not None for part in value)


def _are_points(value: Sequence[Any]) -> bool:
    return len(value) >= 2 and all(
        isinstance(part, list | tuple) and len(part) == 2 and _number(part[0]) is not None
        for part in value
    )


def _number(value: Any) -> float | None:
    """Return `value` if it is a finite number or the text of one, and otherwise None."""
    if isinstance(value, str) and _NUMBERS.fullmatch(value.strip()):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:
        return None


def _quad(value: Any) -> Quad:
    """Return one box with sorted edges. Raises DataError with the reason if it is unusable."""
    points = _points(value)
    if len(points) < 2:
        raise DataError(f"{_show(value)} is not four numbers")
    across, down = [x for x, _ in points], [y for _, y in points]
    left, top, right, bottom = min(across), min(down), max(across), max(down)
    if left == right or top == bottom:
        raise DataError(f"{_show(value)} has no area")
    if len(points) == 4 and _looks_like_two_boxes(points):
        raise DataError(f"{_show(value)} may be one polygon or two boxes")
    return left, top, right, bottom


def _points(value: Any) -> list[tuple[float, float]]:
    """Return the points of a box or polygon, or an empty list if `value` is neither."""
    if isinstance(value, str) and _ONLY_NUMBERS.fullmatch(value):
        value = _NUMBERS.findall(value)
    if not isinstance(value, list | tuple):
        return []
    if _are_points(value):
        value = [edge for point in value for edge in point]
    numbers = [number for part in value if (number := _number(part)) is not None]
    if len(numbers) != len(value) or len(numbers) % 2 or len(numbers) < 4:
        return []
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def _looks_like_two_boxes(points: Sequence[tuple[float, float]]) -> bool:
    """Return whether the polygon of the four points covers less than half of the box around it."""
    turned = [*points[1:], points[0]]
    area = abs(sum(a * d - b * c for (a, b), (c, d) in zip(points, turned, strict=True))) / 2
    across, down = [x for x, _ in points], [y for _, y in points]
    return area < 0.5 * (max(across) - min(across)) * (max(down) - min(down))


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
