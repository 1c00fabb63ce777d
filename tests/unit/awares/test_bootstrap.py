import numpy as np
import pytest

from awares.evaluation.bootstrap import difference, interval


def test_the_interval_of_a_share_is_the_binomials():
    low, high = interval([1.0] * 900 + [0.0] * 100, seed=1)
    assert low == pytest.approx(0.9 - 1.96 * 0.0095, abs=0.003) and high == pytest.approx(
        0.9 + 1.96 * 0.0095, abs=0.003
    )


def test_seeds_repeat_and_blocks_do_not_show(monkeypatch):
    values = list(np.random.default_rng(0).normal(size=300))
    assert interval(values, seed=3) == interval(values, seed=3) != interval(values, seed=4)
    whole = interval(values, seed=3)
    monkeypatch.setattr("awares.evaluation.bootstrap._BLOCK", 700)
    assert interval(values, seed=3) == pytest.approx(whole, abs=0.02)


def test_constants_have_no_width_and_pairs_cancel_what_they_share():
    assert interval([0.5]) == (0.5, 0.5)
    hard = [float(i % 2) for i in range(100)]
    assert difference([value + 0.25 for value in hard], hard) == (0.25, 0.25)


def test_nine_in_ten_and_a_half_intervals_hold_the_mean():
    """The method's own promise, on 200 draws from a known distribution."""
    generator = np.random.default_rng(7)
    held = [
        low <= 0.3 <= high
        for low, high in (
            interval(list(generator.random(200) < 0.3), seed=i, resamples=400) for i in range(200)
        )
    ]
    assert 0.9 <= np.mean(held) <= 0.99
