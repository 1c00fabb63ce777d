"""Tests the learning rates of SFT against values that were computed by hand."""

import pytest

from awares_platform.sft.schedule import cosine


@pytest.mark.parametrize(
    ("step", "rate"),
    [(0, 0.25), (3, 1.0), (4, 1.0), (12, 0.5), (20 - 1, 0.5 * (1 + -0.9807852804032304))],
)
def test_warmup_is_linear_and_the_rest_a_cosine(step: int, rate: float) -> None:
    assert cosine(step, steps=20, peak=1.0, warmup_ratio=0.2) == pytest.approx(rate)


def test_without_warmup_the_first_step_has_the_peak_rate() -> None:
    assert cosine(0, steps=7, peak=3e-4, warmup_ratio=0.0) == 3e-4
