"""Draws the main figure of a run: the accuracy of each policy against its visual tokens."""

import math
from collections.abc import Sequence
from html import escape
from typing import Any

from awares_platform.evaluate.results import NAMES
from awares_platform.report.curves import number, ticks
from awares_platform.report.labels import LINE, NamePlate, place

WIDTH, HEIGHT = 680, 300
LEFT, RIGHT, TOP, BOTTOM = 52, 24, 26, 46
FREE = (LEFT, TOP - 8, WIDTH, HEIGHT - BOTTOM - 8)
"""The area in which the names of the policies may stand, as (left, top, right, bottom)."""
RADIUS, RING = 6.5, 4.0
"""The radius of a mark, and the width of the ring that a covered mark shows, in SVG units."""


def tradeoff(policies: dict[str, dict[str, Any]]) -> str:
    """Draw each policy as a mark, with the 95 % interval of the policy's accuracy.

    A mark is better if it is further up or further left. `policies` is the value of the key
    "policies" in results.json.
    """
    most = max(1.0, *(row["rtr_token"] for row in policies.values())) * 1.06
    floor = min(row["accuracy_ci95"][0] for row in policies.values())
    low = max(0.0, floor - 0.05)
    points = [
        (NAMES[name], _x(row["rtr_token"], most), _y(row["accuracy"], low))
        for name, row in policies.items()
    ]
    labels = place(points, FREE)
    radii = _radii([(x, y) for _, x, y in points])
    marks = [
        _mark(name, row, low, most, labels[NAMES[name]], radius)
        for (name, row), radius in zip(policies.items(), radii, strict=True)
    ]
    about = 'role="img" aria-label="Accuracy over visual tokens of each policy"'
    return (
        f'<svg class="tradeoff" viewBox="0 0 {WIDTH} {HEIGHT}" {about}>'
        f"{_axes(low, most)}{''.join(marks)}</svg>"
    )


def _radii(places: Sequence[tuple[float, float]]) -> list[float]:
    """Return the radius of each mark.

    A mark that later marks cover is larger than the later marks. Marks at one place thus look like
    rings around each other.
    """
    return [
        RADIUS + RING * sum(math.dist(at, other) < RADIUS for other in places[index + 1 :])
        for index, at in enumerate(places)
    ]


def _x(value: float, most: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * value / most


def _y(value: float, low: float) -> float:
    return TOP + (HEIGHT - TOP - BOTTOM) * (1 - value) / (1 - low)


def _axes(low: float, most: float) -> str:
    rows = "".join(_row(value, _y(value, low)) for value in ticks(low, 1.0))
    columns = "".join(_column(value, _x(value, most)) for value in ticks(0.0, most, 5))
    base = HEIGHT - BOTTOM
    ends = f'x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{base}" y2="{base}"'
    name = "visual tokens, as a share of the full image's (rtr_token)"
    return (
        f'{rows}{columns}<line class="axis" {ends}/>'
        f'<text class="tick" x="{LEFT}" y="{HEIGHT - 6}">{name}</text>'
        f'<text class="tick" x="2" y="{TOP - 12}">accuracy</text>'
    )


def _row(value: float, y: float) -> str:
    """Draw a horizontal grid line at `y`, and the accuracy `value` to the left of the line."""
    ends = f'x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"'
    at = f'x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end"'
    return f'<line class="grid" {ends}/><text class="tick" {at}>{value:.0%}</text>'


def _column(value: float, x: float) -> str:
    """Draw the label of the RTR `value` below the axis, at `x`."""
    at = f'x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle"'
    return f'<text class="tick" {at}>{number(value)}</text>'


def _mark(
    name: str, row: dict[str, Any], low: float, most: float, label: NamePlate, radius: float
) -> str:
    x, y = _x(row["rtr_token"], most), _y(row["accuracy"], low)
    top, bottom = _y(row["accuracy_ci95"][1], low), _y(row["accuracy_ci95"][0], low)
    tip = f"{NAMES[name]}: {row['accuracy']:.1%} at RTR {row['rtr_token']:.2f}"
    at = f'x="{label.x:.1f}" y="{label.y + 4:.1f}" text-anchor="{label.anchor}"'
    return (
        f'<g class="policy-{name}"><title>{escape(tip)}</title>'
        f'<line class="whisker" x1="{x:.1f}" x2="{x:.1f}" y1="{top:.1f}" y2="{bottom:.1f}"/>'
        f'<circle class="mark" cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}"/>'
        f"{_leader(x, y, label)}"
        f'<text class="name" {at}>{escape(NAMES[name])}</text></g>'
    )


def _leader(x: float, y: float, label: NamePlate) -> str:
    """Draw a line from a mark to its name if the name stands far from the mark."""
    if abs(label.y - y) < 1.5 * LINE or label.left < x < label.right:
        return ""
    end = label.left - 4 if label.left > x else label.right + 4
    ends = f'x1="{x:.1f}" y1="{y:.1f}" x2="{end:.1f}" y2="{label.y:.1f}"'
    return f'<line class="leader" {ends}/>'
