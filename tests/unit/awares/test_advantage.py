import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awares.advantage import advantages, batch_divisor


def test_by_hand():
    # The mean is 3. The sample variance is (4 + 0 + 4) / 2 = 4.
    assert advantages([1.0, 3.0, 5.0], eps=0.0) == [-1.0, 0.0, 1.0]
    assert advantages([1.0, 3.0, 5.0], eps=2.0) == [-0.5, 0.0, 0.5]
    assert advantages([1.0, 3.0], eps=0.0) == [
        pytest.approx(-math.sqrt(0.5)),
        pytest.approx(math.sqrt(0.5)),
    ]
    assert advantages([0.0, 0.0, 0.0, 8.0], eps=0.0) == pytest.approx([-0.5, -0.5, -0.5, 1.5])


@pytest.mark.parametrize("scale", ["none", "batch"])
def test_without_the_scale_of_the_group_an_advantage_is_a_difference(scale):
    assert advantages([1.0, 3.0, 8.0], scale=scale) == [-3.0, -1.0, 4.0]
    assert advantages([0.1] * 3, scale=scale) == [0.0] * 3
    assert advantages([3.0], scale=scale) == [0.0]


def test_the_divisor_of_a_batch_by_hand():
    # The mean is 3. The sample variance is (4 + 0 + 4) / 2 = 4.
    assert batch_divisor([1.0, 3.0, 5.0], eps=0.5) == 2.5
    assert batch_divisor([7.0] * 4) == batch_divisor([7.0]) == batch_divisor([]) == 1e-4


def test_groups_that_teach_nothing_are_zero():
    assert advantages([]) == []
    assert advantages([3.0]) == [0.0]
    assert advantages([0.1] * 8) == [0.0] * 8
    # In floating point, the mean of three values of 0.1 is not exactly 0.1.
    assert advantages([0.1] * 3, eps=0.0) == [0.0] * 3


def test_the_area_cost_acts_when_answers_tie():
    """Check that a tiny reward difference of 0.0025 gives one advantage above 0.6.

    Advantages are divided by the standard deviation of the rewards, which is tiny, too.
    """
    quadrant, half = 10 - 0.2525, 10 - 0.255
    better, worse = advantages([quadrant, half])
    assert better == pytest.approx(-worse) and better > 0.6


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=16))
def test_centred_bounded_and_ordered(values):
    got = advantages(values)
    assert abs(sum(got)) < 1e-6 and max(map(abs, got)) <= math.sqrt(len(values))
    assert sorted(range(len(values)), key=lambda i: (values[i], i)) == sorted(
        range(len(values)), key=lambda i: (got[i], values[i], i)
    )
