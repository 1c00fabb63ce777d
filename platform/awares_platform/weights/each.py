"""One function over many items, on several threads where there are several cores for it."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def each(function: Callable[[Item], Result], items: Iterable[Item], threads: int) -> list[Result]:
    """The results in the items' order. Raises what the first failing item raised. A single thread is the caller's own: handing an item of
    a hundred microseconds to another one, and waiting for it, costs as much again."""
    if threads == 1:
        return [function(item) for item in items]
    with ThreadPoolExecutor(threads) as pool:
        return [*pool.map(function, items)]
