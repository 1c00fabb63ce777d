"""The run in one picture: each policy's accuracy over the visual tokens that it spends."""

from dataclasses import dataclass
from html import escape
from typing import Any, Literal

from awares_platform.report.curves import number, ticks
from awares_platform.results import NAMES

WIDTH, HEIGHT = 680, 300
LEFT, RIGHT, TOP, BOTTOM = 52, 24, 26, 46
LINE, LETTER = 17, 6.9
"""Height of a line and mean width of a letter of the names, in the drawing's units."""


def tradeoff(policies: dict[str, dict[str, Any]]) -> str:
    """A scatter with 95 % intervals; up and to the left is better."""
    most = max(1.0, *(row["rtr_token"] for row in policies.values())) * 1.06
    floor = min(row["accuracy_ci95"][0] for row in policies.values())
    low = max(0.0, floor - 0.05)
    labels = _labels([(name, _x(row["rtr_token"], most), _y(row["accuracy"], low)) for name, row in policies.items()])
    return (
        f'<svg class="tradeoff" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Accuracy over visual tokens of each policy">'
        f"{_axes(low, most)}{''.join(_mark(name, row, low, most, labels[name]) for name, row in policies.items())}</svg>"
    )


def _x(value: float, most: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * value / most


def _y(value: float, low: float) -> float:
    return TOP + (HEIGHT - TOP - BOTTOM) * (1 - value) / (1 - low)


def _axes(low: float, most: float) -> str:
    rows = "".join(
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{_y(value, low):.1f}" y2="{_y(value, low):.1f}"/>'
        f'<text class="tick" x="{LEFT - 8}" y="{_y(value, low) + 4:.1f}" text-anchor="end">{value:.0%}</text>'
        for value in ticks(low, 1.0)
    )
    columns = "".join(
        f'<text class="tick" x="{_x(value, most):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{number(value)}</text>'
        for value in ticks(0.0, most, 5)
    )
    base = HEIGHT - BOTTOM
    return (
        f'{rows}{columns}<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{base}" y2="{base}"/>'
        f'<text class="tick" x="{LEFT}" y="{HEIGHT - 6}">visual tokens, as a share of the full image\'s (rtr_token)</text>'
        f'<text class="tick" x="{LEFT}" y="{TOP - 8}">accuracy</text>'
    )


def _mark(name: str, row: dict[str, Any], low: float, most: float, label: "Label") -> str:
    x, y = _x(row["rtr_token"], most), _y(row["accuracy"], low)
    top, bottom = _y(row["accuracy_ci95"][1], low), _y(row["accuracy_ci95"][0], low)
    tip = f"{NAMES[name]}: {row['accuracy']:.1%} at RTR {row['rtr_token']:.2f}"
    return (
        f'<g class="policy-{name}"><title>{escape(tip)}</title>'
        f'<line class="whisker" x1="{x:.1f}" x2="{x:.1f}" y1="{top:.1f}" y2="{bottom:.1f}"/>'
        f'<circle class="mark" cx="{x:.1f}" cy="{y:.1f}" r="6.5"/>'
        f'<text class="name" x="{label.x:.1f}" y="{label.y + 4:.1f}" text-anchor="{label.anchor}">{escape(NAMES[name])}</text></g>'
    )


@dataclass(frozen=True, slots=True)
class Label:
    """Where a name stands: its anchor point, and how it hangs on it.

    Example:
        Label(212.0, 48.0, "start", 120.0)
    """

    x: float
    y: float
    anchor: Literal["start", "middle", "end"]
    width: float

    def left(self) -> float:
        """Left edge of the text."""
        return self.x - {"start": 0.0, "middle": self.width / 2, "end": self.width}[self.anchor]

    def overlaps(self, other: "Label") -> bool:
        """Whether two names would touch."""
        apart = self.left() > other.left() + other.width + 6 or other.left() > self.left() + self.width + 6
        return not apart and abs(self.y - other.y) < LINE


def _labels(marks: list[tuple[str, float, float]]) -> dict[str, Label]:
    """A free place for each name beside, below or above its mark; (name, x, y)."""
    dots = [Label(x, y, "middle", 14) for _, x, y in marks]
    placed: dict[str, Label] = {}
    for name, x, y in marks:
        width = len(NAMES[name]) * LETTER
        spots: list[tuple[float, float, Literal["start", "middle", "end"]]] = [(12, 0, "start"), (-12, 0, "end")]
        spots += [(0, lines * LINE, "middle") for lines in (1.25, -1.25, 2.25, -2.25)]
        choices = [Label(x + dx, y + dy, anchor, width) for dx, dy, anchor in spots]
        inside = [
            label
            for label in choices
            if label.left() > LEFT and label.left() + label.width < WIDTH and TOP - 8 < label.y < HEIGHT - BOTTOM - 8
        ]
        taken = [*placed.values(), *(dot for dot in dots if (dot.x, dot.y) != (x, y))]
        placed[name] = next((label for label in inside if not any(label.overlaps(other) for other in taken)), (inside or choices)[0])
    return placed
