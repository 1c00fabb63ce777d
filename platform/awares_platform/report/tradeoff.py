"""The run in one picture: each policy's accuracy over the visual tokens that it spends."""

from html import escape
from typing import Any

from awares_platform.evaluate.results import NAMES
from awares_platform.report.curves import number, ticks
from awares_platform.report.labels import Label, place

WIDTH, HEIGHT = 680, 300
LEFT, RIGHT, TOP, BOTTOM = 52, 24, 26, 46
FREE = (LEFT, TOP - 8, WIDTH, HEIGHT - BOTTOM - 8)
"""Where names may stand: left, top, right, bottom."""


def tradeoff(policies: dict[str, dict[str, Any]]) -> str:
    """A scatter with 95 % intervals; up and to the left is better."""
    most = max(1.0, *(row["rtr_token"] for row in policies.values())) * 1.06
    floor = min(row["accuracy_ci95"][0] for row in policies.values())
    low = max(0.0, floor - 0.05)
    labels = place(
        [
            (NAMES[name], _x(row["rtr_token"], most), _y(row["accuracy"], low))
            for name, row in policies.items()
        ],
        FREE,
    )
    return (
        f'<svg class="tradeoff" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Accuracy over visual tokens of each policy">'
        f"{_axes(low, most)}{''.join(_mark(name, row, low, most, labels[NAMES[name]]) for name, row in policies.items())}</svg>"
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


def _mark(name: str, row: dict[str, Any], low: float, most: float, label: Label) -> str:
    x, y = _x(row["rtr_token"], most), _y(row["accuracy"], low)
    top, bottom = _y(row["accuracy_ci95"][1], low), _y(row["accuracy_ci95"][0], low)
    tip = f"{NAMES[name]}: {row['accuracy']:.1%} at RTR {row['rtr_token']:.2f}"
    return (
        f'<g class="policy-{name}"><title>{escape(tip)}</title>'
        f'<line class="whisker" x1="{x:.1f}" x2="{x:.1f}" y1="{top:.1f}" y2="{bottom:.1f}"/>'
        f'<circle class="mark" cx="{x:.1f}" cy="{y:.1f}" r="6.5"/>'
        f'<text class="name" x="{label.x:.1f}" y="{label.y + 4:.1f}" text-anchor="{label.anchor}">{escape(NAMES[name])}</text></g>'
    )
