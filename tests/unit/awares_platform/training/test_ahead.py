import gc
import threading
import weakref
from contextlib import closing
from itertools import islice

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
    values.close()
    assert made == [0, 1]


def test_the_first_pass_of_a_step_is_made_during_the_last_pass_of_the_step_before() -> None:
    begun = [threading.Event() for _ in range(6)]
    with closing(one_ahead(lambda item: begun[item].set() or item, range(6))) as values:
        assert list(islice(values, 2)) == [0, 1]
        assert begun[2].wait(10) and not begun[3].is_set()
        assert list(islice(values, 3)) == [2, 3, 4]


def test_closing_waits_for_the_value_in_work_and_ends_the_thread() -> None:
    begun, finished = threading.Event(), threading.Event()

    def make(item: int) -> int:
        if item:
            begun.set()
            finished.wait(10)
        return item

    values = one_ahead(make, range(5))
    assert next(values) == 0 and begun.wait(10)
    assert _ahead_threads() == 1
    threading.Timer(0.05, finished.set).start()
    values.close()
    assert finished.is_set() and _ahead_threads() == 0


def test_the_current_value_is_freed_while_the_next_one_waits() -> None:
    class Value:
        pass

    values = one_ahead(lambda _: Value(), range(3))
    current = next(values)
    freed = weakref.ref(current)
    del current
    gc.collect()
    assert freed() is None
    values.close()


def test_a_failure_is_raised_at_its_turn() -> None:
    values = one_ahead(lambda divisor: 10 // divisor, [5, 0, 2])
    assert next(values) == 2
    with pytest.raises(ZeroDivisionError):
        next(values)


def _ahead_threads() -> int:
    return sum(thread.name.startswith("ahead") for thread in threading.enumerate())
