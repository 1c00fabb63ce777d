"""Draws a line chart for each measure, as inline SVG.

A thin line shows the raw values. A thick line shows their trend, with the last value at its end.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from awares_platform.runtime.metrics import Row

WIDTH, HEIGHT = 340, 190
LEFT, RIGHT, TOP, BOTTOM = 54, 66, 12, 26
TREND_WEIGHT = 0.25

Point = tuple[float, float]
Projection = Callable[[Point], Point]


@dataclass(frozen=True, slots=True)
class Measure:
    """One metric of one job, with the title and the note of the metric's chart.

    Example:
        Measure("grpo", "rtr/token", "RTR", "visual tokens over the full image's")
    """

    job: str
    key: str
    """Key of the metric in metrics.jsonl."""
    title: str
    note: str
    span: tuple[float, float] | None = None
    """Range of the value axis, or None to fit the values."""


MEASURES = (
    Measure("grpo", "reward/mean", "Reward", "mean over the step's episodes"),
    Measure("grpo", "accuracy/train", "Accuracy", "sampled answers, training questions"),
    Measure(
        "grpo", "validation/reward", "Held-out reward", "greedy answers, held-out training images"
    ),
    Measure("grpo", "validation/accuracy", "Held-out accuracy", "scored by evaluate.scorer"),
    Measure("grpo", "validation/rtr_token", "Held-out RTR", "visual tokens over the full image's"),
    Measure("grpo", "validation/call_rate", "Held-out calls", "share of questions with crops"),
    Measure("grpo", "rtr/token", "RTR", "visual tokens over the full image's"),
    Measure("grpo", "call/rate", "Call rate", "share of episodes that ask for crops"),
    Measure("grpo", "policy/kl", "KL to the SFT policy", "k3 estimate, nats per token"),
    Measure("grpo", "staleness/mean", "Staleness", "versions behind, mean over sampled tokens"),
    Measure(
        "grpo", "canary/dlogp", "Canary", "mean |Δ logprob|, learner against engine, after a load"
    ),
    Measure("grpo", "canary/slope", "Update played", "engine's change of logprobs over learner's"),
    Measure("grpo", "weights/share", "Weights sent", "bytes of a version over the whole policy's"),
    Measure("grpo", "time/pause", "Pause", "seconds that a load holds generation up"),
    Measure("grpo", "engine/busy", "Engines busy", "share of time with a request in flight"),
    Measure("grpo", "engine/tokens_per_s", "Tokens sampled", "per second, all engines"),
    Measure("grpo", "learner/busy", "Learner busy", "share of a step in which it trains"),
    Measure("grpo", "learner/tokens_per_s", "Tokens trained", "per second, all ranks"),
    Measure("grpo", "learner/mfu", "MFU", "FLOPs of the model over those of the processor"),
    Measure("grpo", "learner/padding", "Padding", "share of the computed tokens"),
    Measure("sft", "loss/sft", "SFT loss", "weighted negative log-likelihood"),
    Measure("sft", "validation/loss", "SFT held-out loss", "on held-out demonstrations"),
    Measure(
        "sft", "validation/tool_turns", "SFT requests", "share with every token right, held-out"
    ),
    Measure("sft", "validation/decisions", "SFT decisions", "to ask or not, share right, held-out"),
)


Metrics = Mapping[str, Sequence[Row]]
"""Maps the name of a job to the rows of the job's metrics."""


def curves(metrics: Metrics, beside: Metrics | None = None) -> str:
    """Draw a figure for every measure that the run recorded.

    `beside` are the metrics of another run, whose trends are dashed lines in the same figures.
    """
    figures = []
    for measure in MEASURES:
        if points := _points(metrics, measure):
            figures.append(_figure(measure, points, _points(beside or {}, measure)))
    return "\n".join(figures)


def _points(metrics: Metrics, measure: Measure) -> list[Point]:
    values = [(row.step, row.values.get(measure.key)) for row in metrics.get(measure.job, ())]
    return [(float(step), value) for step, value in values if value is not None]


def _figure(measure: Measure, points: list[Point], beside: list[Point]) -> str:
    title, note = escape(measure.title), escape(measure.note)
    caption = f"<figcaption><b>{title}</b> <span>{note}</span></figcaption>"
    chart = line_chart(points, measure.title, measure.span, beside)
    return f'<figure class="chart">{caption}{chart}</figure>'


def line_chart(
    points: Sequence[Point],
    label: str,
    span: tuple[float, float] | None = None,
    beside: Sequence[Point] = (),
) -> str:
    """Draw `points` as an SVG, and the trend of the points `beside` as a dashed line.

    Points are (step, value) in ascending order. `label` is for screen readers. `span` is the range
    of the value axis, or None.
    """
    every = [*points, *beside]
    low, high = span or _span([value for _, value in every])
    first = min(step for step, _ in every)
    last = max(first + 1, *(step for step, _ in every))

    def place(point: Point) -> Point:
        x = LEFT + (WIDTH - LEFT - RIGHT) * (point[0] - first) / (last - first)
        return x, TOP + (HEIGHT - TOP - BOTTOM) * (high - point[1]) / (high - low)

    smooth = trend(points)
    value = number(smooth[-1][1])
    x, y = place(smooth[-1])
    about = f"{escape(label)} over steps, last {value}"
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{about}">'
        f"{_value_axis(low, high, place, first)}{_step_axis(first, last)}"
        f'{_beside(beside, place)}<path class="raw" d="{_path(points, place)}"/>'
        f'<path class="trend" d="{_path(smooth, place)}"/>'
        f'<circle class="end" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>'
        f'<text class="value" x="{x + 8:.1f}" y="{y + 4:.1f}">{value}</text>'
        f"{''.join(_hover(point, place(point)) for point in points)}</svg>"
    )


def trend(points: Sequence[Point]) -> list[Point]:
    """Return the exponential moving average of the values, with bias correction.

    Without the correction, the first averages are too close to 0. Adam uses the same correction
    (arXiv 1412.6980, section 3).
    """
    total = weight = 0.0
    smooth = []
    for step, value in points:
        total = (1 - TREND_WEIGHT) * total + TREND_WEIGHT * value
        weight = (1 - TREND_WEIGHT) * weight + TREND_WEIGHT
        smooth.append((step, total / weight))
    return smooth


def number(value: float, digits: int = 3) -> str:
    """Format a number with `digits` significant digits.

    If `digits` is at most 3, numbers from 1000 become whole numbers, such as 12,345. Numbers below
    0.001 get an exponent.

    Example:
        number(0.00012345)  # "1.2e-4"
    """
    if value != 0 and abs(value) < 0.001:
        mantissa, power = f"{value:.{digits - 2}e}".split("e")
        return f"{float(mantissa):g}e{int(power)}"
    return f"{value:.{digits}g}" if digits > 3 or abs(value) < 1000 else f"{value:,.0f}"


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Return about `count` round numbers between `low` and `high`, in ascending order."""
    rough = (high - low) / count
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough)
    start = math.ceil(low / step - 1e-9)
    return [round(index * step, 12) for index in range(start, math.floor(high / step + 1e-9) + 1)]


def tick_labels(values: Sequence[float]) -> list[str]:
    """Return a label for each of the evenly spaced ticks.

    The labels have enough digits to tell the ticks apart.
    """
    step = values[1] - values[0] if len(values) > 1 else math.inf
    labels = [number(value) for value in values]
    digits = 3
    while any(
        abs(float(label.replace(",", "")) - value) > step / 20
        for label, value in zip(labels, values, strict=True)
    ):
        digits += 1
        labels = [number(value, digits) for value in values]
    return labels


def _span(values: list[float]) -> tuple[float, float]:
    """Return the range of the value axis.

    The range covers at least 2 % of the largest absolute value, so that noise looks small.
    """
    low, high = min(values), max(values)
    margin = max((high - low) * 0.08, abs(low) * 0.01, abs(high) * 0.01) or 1.0
    return (low - margin if low < 0 or low - margin > 0 else 0.0), high + margin


def _beside(points: Sequence[Point], place: Projection) -> str:
    return f'<path class="beside" d="{_path(trend(points), place)}"/>' if points else ""


def _path(points: Sequence[Point], place: Projection) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in map(place, points))


def _value_axis(low: float, high: float, place: Projection, first: float) -> str:
    parts = []
    values = ticks(low, high)
    for value, text in zip(values, tick_labels(values), strict=True):
        y = place((first, value))[1]
        line = f'x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"'
        label = f'x="{LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end"'
        parts.append(f'<line class="grid" {line}/>')
        parts.append(f'<text class="tick" {label}>{text}</text>')
    return "".join(parts)


def _step_axis(first: float, last: float) -> str:
    y = HEIGHT - 8
    return (
        f'<text class="tick" x="{LEFT}" y="{y}">step {first:g}</text>'
        f'<text class="tick" x="{WIDTH - RIGHT}" y="{y}" text-anchor="end">{last:g}</text>'
    )


def _hover(point: Point, at: Point) -> str:
    title = f"<title>step {point[0]:g}: {number(point[1])}</title>"
    return f'<circle class="hover" cx="{at[0]:.1f}" cy="{at[1]:.1f}" r="5">{title}</circle>'
