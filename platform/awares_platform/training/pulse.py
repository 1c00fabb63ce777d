"""Ends a trainer process if its training step makes no progress.

A process may answer Ray Train's health checks while its training hangs, for example in a
collective.
"""

import faulthandler
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")
_STDERR = 2


class Pulse:
    """Ends this process if one pass of a training step takes longer than `within_s` seconds.

    The first step, which may compile kernels, has no limit.

    Example:
        pulse = Pulse(90.0)
        with pulse.step():
            zero.step(engine, pulse.beats(losses), learning_rate)
    """

    def __init__(self, within_s: float) -> None:
        self._within_s = within_s
        self._warm = False

    @contextmanager
    def step(self) -> Iterator[None]:
        """Limit the time of each pass in the block.

        A pass lasts from one item of `beats` to the next one, or to the end of the block.
        """
        self._beat()
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
        self._warm = True

    def beats(self, passes: Iterable[T]) -> Iterator[T]:
        """Yield the items of `passes`. Each item starts the time limit anew."""
        for item in passes:
            self._beat()
            yield item

    def _beat(self) -> None:
        if self._warm:
            faulthandler.dump_traceback_later(self._within_s, exit=True, file=_STDERR)
