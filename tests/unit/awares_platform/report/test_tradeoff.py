"""The scatter's labels never cover each other or leave the drawing."""

import itertools

import pytest

from awares_platform.report.tradeoff import LEFT, WIDTH, _labels, tradeoff

ROW = {"accuracy": 0.9, "accuracy_ci95": [0.88, 0.92], "rtr_token": 0.4}


@pytest.mark.parametrize(
    "marks",
    [
        [("full", 640.0, 60.0), ("low", 200.0, 200.0), ("escalate", 300.0, 62.0), ("sft", 290.0, 64.0), ("awares", 250.0, 60.0)],
        [("full", 640.0, 60.0), ("low", 200.0, 60.0), ("escalate", 205.0, 60.0), ("sft", 210.0, 60.0), ("awares", 215.0, 60.0)],
    ],
)
def test_names_find_free_places(marks):
    labels = _labels(marks)
    assert not any(first.overlaps(second) for first, second in itertools.combinations(labels.values(), 2))
    assert all(label.left() > LEFT and label.left() + label.width < WIDTH for label in labels.values())


def test_every_policy_is_a_mark_with_its_interval():
    drawing = tradeoff({"low": ROW, "awares": ROW | {"accuracy": 0.95, "accuracy_ci95": [0.94, 0.96]}})
    assert drawing.count('class="mark"') == drawing.count('class="whisker"') == 2
    assert "AwaRes: 95.0% at RTR 0.40" in drawing


def test_a_policy_that_is_never_right_is_drawn():
    assert 'class="mark"' in tradeoff({"low": {"accuracy": 0.0, "accuracy_ci95": [0.0, 0.0], "rtr_token": 0.25}})
