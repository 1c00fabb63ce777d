"""Places the name of each mark of a chart beside the mark, without overlaps where possible."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Anchor = Literal["start", "middle", "end"]

LINE, LETTER, GAP = 17.0, 8.1, 6.0
"""Height of a line, mean width of a letter, and smallest gap beside a name, in SVG units.

LETTER is measured in DejaVu Sans Bold, the widest of the usual system fonts.
"""

_NEAR: tuple[tuple[float, float, Anchor], ...] = (
    (12, 0, "start"),
    (-12, 0, "end"),
    (10, 0.95 * LINE, "start"),
    (10, -0.95 * LINE, "start"),
    (-10, 0.95 * LINE, "end"),
    (-10, -0.95 * LINE, "end"),
    (0, 1.25 * LINE, "middle"),
    (0, -1.25 * LINE, "middle"),
    (0, 2.25 * LINE, "middle"),
    (0, -2.25 * LINE, "middle"),
)
_SIDES: tuple[tuple[float, Anchor], ...] = ((34.0, "start"), (-34.0, "end"))
_FAR: tuple[tuple[float, float, Anchor], ...] = tuple(
    (dx, way * lines * LINE, anchor)
    for lines in range(2, 9)
    for dx, anchor in _SIDES
    for way in (1, -1)
)
SPOTS = _NEAR + _FAR
"""Possible places of a name. The preferred place comes first.

A place is the offset (dx, dy) of the name from its mark, and the alignment of the name. If several
marks coincide, most of their names stand far from the marks, one below the other.
"""


@dataclass(frozen=True, slots=True)
class NamePlate:
    """The place of a text in a chart, in SVG units.

    Example:
        NamePlate(212.0, 48.0, "start", 120.0)
    """

    x: float
    """Position of the text's start, middle or end, as `anchor` says."""
    y: float
    """Height of the text's middle."""
    anchor: Anchor
    width: float
    """Width of the text."""

    @property
    def left(self) -> float:
        """The x coordinate of the text's left edge."""
        return self.x - {"start": 0.0, "middle": self.width / 2, "end": self.width}[self.anchor]

    @property
    def right(self) -> float:
        """The x coordinate of the text's right edge."""
        return self.left + self.width

    def overlaps(self, other: "NamePlate") -> bool:
        """Return whether the texts overlap, or nearly do.

        Such texts are at most GAP apart horizontally, and their `y` differ by less than LINE.
        """
        apart = self.left > other.right + GAP or other.left > self.right + GAP
        return not apart and abs(self.y - other.y) < LINE

    def within(self, frame: tuple[float, float, float, float]) -> bool:
        """Return whether the text's left edge, its right edge and `y` lie inside `frame`.

        `frame` is (left, top, right, bottom). The height of the text does not matter.
        """
        return frame[0] < self.left and self.right < frame[2] and frame[1] < self.y < frame[3]


def place(
    marks: Sequence[tuple[str, float, float]], frame: tuple[float, float, float, float]
) -> dict[str, NamePlate]:
    """Choose a place for the name of each mark. A mark is (name, x, y).

    The place is the first of SPOTS that is inside `frame` and free of marks and earlier names.
    If there is no such place, the name may overlap others.
    """
    dots = [NamePlate(x, y, "middle", 14) for _, x, y in marks]
    placed: dict[str, NamePlate] = {}
    for name, x, y in marks:
        choices = [
            NamePlate(x + dx, y + dy, anchor, len(name) * LETTER) for dx, dy, anchor in SPOTS
        ]
        inside = [label for label in choices if label.within(frame)] or choices
        taken = [*placed.values(), *(dot for dot in dots if (dot.x, dot.y) != (x, y))]
        placed[name] = next(
            (label for label in inside if not any(label.overlaps(other) for other in taken)),
            inside[0],
        )
    return placed
