"""Tests bootstrap confidence intervals, partly against the formula for a binomial proportion."""

import numpy as np
import pytest

from awares.evaluation.bootstrap import difference, interval


def test_the_interval_of_a_share_is_the_binomials():
    low, high = interval([1.0] * 900 + [0.0] * 100, seed=1)
    assert low == pytest.approx(0.9 - 1.96 * 0.0095, abs=0.003)
    assert high == pytest.approx(0.9 + 1.96 * 0.0095, abs=0.003)


def test_a_seed_repeats_its_interval_and_the_block_size_hardly_changes_it(monkeypatch):
    values = list(np.random.default_rng(0).normal(size=300))
    assert interval(values, seed=3) == interval(values, seed=3) != interval(values, seed=4)
    whole = interval(values, seed=3)
    monkeypatch.setattr("awares.evaluation.bootstrap._BLOCK", 700)
    assert interval(values, seed=3) == pytest.approx(whole, abs=0.02)


def test_a_constant_has_no_width_and_paired_differences_cancel_the_question():
    assert interval([0.5]) == (0.5, 0.5)
    hard = [float(i % 2) for i in range(100)]
    assert difference([value + 0.25 for value in hard], hard) == (0.25, 0.25)


def test_about_95_of_100_intervals_hold_the_mean():
    """Check that about 95 % of 200 intervals contain the true mean of 0.3.

    Each interval is computed from 200 random values, which are 0 or 1.
    """
    generator = np.random.default_rng(7)
    samples = [list(generator.random(200) < 0.3) for _ in range(200)]
    intervals = [interval(values, seed=i, resamples=400) for i, values in enumerate(samples)]
    held = [low <= 0.3 <= high for low, high in intervals]
    assert 0.9 <= np.mean(held) <= 0.99


def test_values_of_one_cluster_are_drawn_together():
    """Check that 40 images with five equal values each count as 40 values, and not as 200."""
    images = [float(number % 2) for number in range(40)]
    values = [value for value in images for _ in range(5)]
    clusters = [number for number in range(40) for _ in range(5)]
    clustered = interval(values, clusters, seed=2)
    assert clustered == pytest.approx(interval(images, seed=2))
    low, high = interval(values, seed=2)
    assert (clustered[1] - clustered[0]) / (high - low) == pytest.approx(5**0.5, rel=0.1)
    assert difference(values, [0.0] * 200, clusters, seed=2) == clustered


def test_a_cluster_weighs_as_much_as_it_has_values():
    low, high = interval([1.0, 1.0, 1.0, 0.0], ["a", "a", "a", "b"])
    assert (low, high) == (0.0, 1.0)
    assert interval([0.25, 0.75, 0.5], ["a", "a", "b"]) == (0.5, 0.5)
