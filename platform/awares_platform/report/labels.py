"""Names beside the marks of a chart. No name covers another name or a mark."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Anchor = Literal["start", "middle", "end"]

LINE, LETTER, GAP = 17.0, 6.9, 6.0
"""Height of a line, mean width of a letter, and least space between names, in SVG units."""

SPOTS: tuple[tuple[float, float, Anchor], ...] = (
    (12, 0, "start"),
    (-12, 0, "end"),
    (0, 1.25 * LINE, "middle"),
    (0, -1.25 * LINE, "middle"),
    (0, 2.25 * LINE, "middle"),
    (0, -2.25 * LINE, "middle"),
)
"""Offsets (dx, dy) and alignment of a name beside, below or above its mark, best first."""


@dataclass(frozen=True, slots=True)
class NamePlate:
    """A text of `width`. The point (x, y) is its start, middle or end, as `anchor` says.

    Example:
        NamePlate(212.0, 48.0, "start", 120.0)
    """

    x: float
    y: float
    anchor: Anchor
    width: float

    @property
    def left(self) -> float:
        """Left edge of the text."""
        return self.x - {"start": 0.0, "middle": self.width / 2, "end": self.width}[self.anchor]

    @property
    def right(self) -> float:
        """Right edge of the text."""
        return self.left + self.width

    def overlaps(self, other: "NamePlate") -> bool:
        """Whether the two texts are closer than GAP."""
        apart = self.left > other.right + GAP or other.left > self.right + GAP
        return not apart and abs(self.y - other.y) < LINE

    def within(self, frame: tuple[float, float, float, float]) -> bool:
        """Whether the text lies inside a frame (left, top, right, bottom)."""
        return frame[0] < self.left and self.right < frame[2] and frame[1] < self.y < frame[3]


def place(
    marks: Sequence[tuple[str, float, float]], frame: tuple[float, float, float, float]
) -> dict[str, NamePlate]:
    """Choose a place for the name of each mark (name, x, y).

    A name takes its first spot inside `frame` that touches no mark and no earlier name. If
    every spot touches something, it takes its first spot inside `frame`.
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
