"""Tests the values, ticks and trends of charts against values computed by hand."""

import xml.etree.ElementTree as xml

import pytest

from awares_platform.report.curves import curves, line_chart, number, tick_labels, ticks, trend
from awares_platform.runtime.metrics import Row


def test_trend_starts_at_the_first_value_and_is_exact_on_a_constant():
    assert trend([(0, 4.0)]) == [(0, 4.0)]
    constant = trend([(step, 3.0) for step in range(5)])
    assert [value for _, value in constant] == pytest.approx([3.0] * 5)
    # The weights of the two values are 0.25 * 0.75 = 0.1875 and 0.25, with the sum 0.4375.
    assert trend([(0, 0.0), (1, 1.0)])[1][1] == pytest.approx(0.25 / 0.4375)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 1.0, [0.0, 0.25, 0.5, 0.75, 1.0]),
        (0.31, 0.62, [0.4, 0.5, 0.6]),
        (-3.0, 9.0, [0.0, 5.0]),
        (0.0, 0.002, [0.0, 0.0005, 0.001, 0.0015, 0.002]),
    ],
)
def test_ticks_are_round(low, high, expected):
    assert ticks(low, high) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.3456, "0.346"), (8.0, "8"), (1234.5, "1,234"), (2e-5, "2e-5"), (-0.5, "-0.5")],
)
def test_numbers_are_short(value, text):
    assert number(value) == text


def test_ticks_of_small_values_differ():
    assert [number(tick) for tick in ticks(1.4e-6, 3.2e-6)] == [
        "1.5e-6", "2e-6", "2.5e-6", "3e-6",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([0.9998, 1.0, 1.0002], ["0.9998", "1", "1.0002"]),
        ([1000.25, 1000.5], ["1000.25", "1000.5"]),
        ([0.5, 1.0], ["0.5", "1"]),
        ([2e-6, 2.25e-6, 2.5e-6], ["2e-6", "2.25e-6", "2.5e-6"]),
        ([], []),
    ],
)
def test_labels_of_ticks_differ(values, labels):
    assert tick_labels(values) == labels


def test_almost_equal_values_have_short_labels():
    chart = xml.fromstring(line_chart([(0, 0.99991), (1, 1.00001)], "Update played"))
    texts = [str(text.text) for text in chart.iter("text") if text.get("text-anchor") == "end"]
    assert texts[:-1] == ["0.99", "1", "1.01"]


@pytest.mark.parametrize("values", [[2e-6, 2.8e-6], [1000.1, 1025.0], [0.99999, 1.00001]])
def test_labels_fit_between_the_edge_and_the_axis(values):
    """Check labels in DejaVu Sans, whose characters are 6.8 units of the chart wide."""
    chart = xml.fromstring(line_chart(list(enumerate(values)), "Canary"))
    ticks = [text for text in chart.iter("text") if text.get("text-anchor") == "end"][:-1]
    assert len(ticks) > 1
    assert all(6.8 * len(str(text.text)) <= float(text.get("x", "nan")) for text in ticks)


@pytest.mark.parametrize("values", [[1.0], [2.0, 2.0, 2.0], [0.0, 0.0], [-1.0, 1.0], [1e-9, 2e-9]])
def test_a_chart_of_any_values_stays_inside_its_frame(values):
    chart = xml.fromstring(line_chart(list(enumerate(values)), "Reward"))
    circles = [circle for circle in chart.iter("circle") if circle.get("class") == "hover"]
    assert len(circles) == len(values)
    assert all(0 <= float(circle.get("cx", "nan")) <= 340 for circle in circles)
    assert all(0 <= float(circle.get("cy", "nan")) <= 190 for circle in circles)


def test_a_missing_value_has_no_point_and_an_absent_measure_no_chart():
    values = enumerate([1.0, None, 3.0])
    rows = tuple(Row(step, 0.0, {"reward/mean": value}) for step, value in values)
    figure = curves({"grpo": rows})
    assert figure.count("<figure") == 1 and figure.count("<title>") == 2
    assert curves({}) == ""


def test_the_share_of_the_update_that_the_engine_plays_is_plotted_over_steps():
    """A version without a slope has no point.

    The slope is the engine's change of the canary's logprobs divided by the learner's change.
    """
    slopes = {1: None, 2: 0.98, 3: 1.01}
    rows = tuple(
        Row(step, 0.0, {} if slope is None else {"canary/slope": slope})
        for step, slope in slopes.items()
    )
    drawn = curves({"grpo": rows})
    assert drawn.count("<figure") == 1 and "Update played" in drawn
    assert drawn.count("<title>") == 2
