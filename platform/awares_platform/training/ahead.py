"""Prepares the next forward pass while the current one computes."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Given = TypeVar("Given")
Made = TypeVar("Made")


def one_ahead(make: Callable[[Given], Made], given: Iterable[Given]) -> Iterator[Made]:
    """Yield `make(item)` for each item, in order.

    A second thread makes the next value while the caller works on the current value. If `make`
    fails for an item, its exception is raised when the caller asks for this item's value.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as thread:
        coming = None
        for item in given:
            current, coming = coming, thread.submit(make, item)
            if current is not None:
                yield current.result()
        if coming is not None:
            yield coming.result()
