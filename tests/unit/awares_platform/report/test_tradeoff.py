"""Tests the figure that plots accuracy against visual tokens."""

import re

from awares_platform.report.tradeoff import tradeoff

ROW = {"accuracy": 0.9, "accuracy_ci95": [0.88, 0.92], "rtr_token": 0.4}


def test_every_policy_is_a_mark_with_its_interval():
    better = ROW | {"accuracy": 0.95, "accuracy_ci95": [0.94, 0.96]}
    drawing = tradeoff({"low": ROW, "awares": better})
    assert drawing.count('class="mark"') == drawing.count('class="whisker"') == 2
    assert "AwaRes: 95.0% at RTR 0.40" in drawing


def test_a_policy_that_is_never_right_is_drawn():
    never_right = {"accuracy": 0.0, "accuracy_ci95": [0.0, 0.0], "rtr_token": 0.25}
    assert 'class="mark"' in tradeoff({"low": never_right})


def test_policies_at_one_place_are_rings_with_names_of_their_own():
    """Check three policies with equal accuracy and token ratio, near the corner of the chart."""
    drawing = tradeoff({name: ROW | {"rtr_token": 1.0} for name in ("full", "sft", "awares")})
    radii = [float(radius) for radius in re.findall(r'class="mark"[^>]* r="([^"]*)"', drawing)]
    assert radii == [14.5, 10.5, 6.5]
    heights = re.findall(r'class="name" x="[^"]*" y="([^"]*)"', drawing)
    assert len(set(heights)) == 3 and 'class="leader"' in drawing
