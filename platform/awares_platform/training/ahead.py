"""Prepares the next forward pass while the current one computes."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Given = TypeVar("Given")
Made = TypeVar("Made")


def one_ahead(make: Callable[[Given], Made], given: Iterable[Given]) -> Generator[Made, None, None]:
    """Yield `make(item)` for each item, in order.

    A second thread makes the next value while the caller works on the current one. An exception of
    `make` is raised in place of the item's value.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as thread:
        coming: deque[Future[Made]] = deque()
        for item in given:
            coming.append(thread.submit(make, item))
            if len(coming) > 1:
                yield coming.popleft().result()
        if coming:
            yield coming.popleft().result()
