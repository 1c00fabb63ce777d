import threading

import pytest

from awares_platform.training.ahead import one_ahead


def test_values_come_in_order_and_the_next_is_made_during_the_current() -> None:
    begun = [threading.Event() for _ in range(4)]

    def make(item: int) -> int:
        begun[item].set()
        return item * 10

    for index, value in enumerate(one_ahead(make, range(4))):
        assert value == index * 10
        if index < 3:
            assert begun[index + 1].wait(10), "the next value must not wait for the caller"
    assert list(one_ahead(make, [])) == []


def test_at_most_one_value_is_made_ahead() -> None:
    made: list[int] = []
    values = one_ahead(made.append, range(5))
    next(values)
    values.close()  # type: ignore[attr-defined]
    assert made == [0, 1]


def test_a_failure_is_raised_at_its_turn() -> None:
    values = one_ahead(lambda divisor: 10 // divisor, [5, 0, 2])
    assert next(values) == 2
    with pytest.raises(ZeroDivisionError):
        next(values)
