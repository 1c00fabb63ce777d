"""Tests that an epoch contains every sample once, and that seed and step determine a batch."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awares.errors import DataError
from awares.passes import PassBudget
from awares_platform.sft.order import SampleOrder, micro_batches


def test_every_sample_comes_once_per_epoch_across_the_seam() -> None:
    order = SampleOrder(count=10, batch_size=4, epochs=2, seed=0)
    seen = [index for step in range(order.steps) for index in order.batch(step)]
    assert order.steps == 5
    assert Counter(seen[:10]) == Counter(seen[10:]) == Counter(range(10))
    assert seen[:10] != seen[10:] != sorted(seen[10:])


@given(
    count=st.integers(1, 60),
    batch_size=st.integers(1, 30),
    epochs=st.integers(1, 4),
    seed=st.integers(0, 5),
)
def test_only_the_last_incomplete_batch_is_left_out(
    count: int, batch_size: int, epochs: int, seed: int
) -> None:
    if count * epochs < batch_size:
        return
    order = SampleOrder(count, batch_size, epochs, seed)
    times = Counter(index for step in range(order.steps) for index in order.batch(step))
    assert sum(times.values()) == order.steps * batch_size > count * epochs - batch_size
    assert max(times.values()) <= epochs


def test_a_resumed_run_sees_the_batches_that_were_still_to_come() -> None:
    before = SampleOrder(count=37, batch_size=8, epochs=3, seed=5)
    straight = [before.batch(step) for step in range(before.steps)]
    resumed = SampleOrder(count=37, batch_size=8, epochs=3, seed=5)
    assert [resumed.batch(step) for step in range(7, resumed.steps)] == straight[7:]


def test_the_seed_changes_the_order() -> None:
    assert SampleOrder(50, 10, 1, seed=0).batch(0) != SampleOrder(50, 10, 1, seed=1).batch(0)


def test_fewer_samples_than_a_batch_is_an_error() -> None:
    with pytest.raises(DataError, match="3 samples x 2 epochs do not fill one batch of 8"):
        SampleOrder(3, 8, 2, 0)


def test_micro_batches_are_equal_in_number_and_alike_in_length() -> None:
    lengths = [10, 80, 30, 70, 20, 60, 40, 50]
    plan = micro_batches(range(8), lengths, PassBudget(2), workers=2)
    # `micro_batches` sorts the samples by length, from long to short. Each micro-batch therefore
    # contains samples of similar length.
    assert plan == [[(1, 3), (6, 2)], [(5, 7), (4, 0)]]


def test_micro_batches_hold_the_batch_once() -> None:
    plan = micro_batches([5, 3, 9, 1, 0, 7], [1] * 10, PassBudget(1), workers=3)
    assert sorted(index for worker in plan for part in worker for index in part) == [
        0,
        1,
        3,
        5,
        7,
        9,
    ]
    assert [len(worker) for worker in plan] == [2, 2, 2]
