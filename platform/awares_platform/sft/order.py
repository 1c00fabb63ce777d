"""Chooses the samples of each step from (seed, count, batch size, step) alone.

A run can therefore resume from a step number. A batch may hold the end of one epoch and the start
of the next. Every sample appears exactly once per epoch. Only an incomplete batch at the end of the
last epoch is left out.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from awares.errors import DataError


@dataclass(frozen=True, slots=True)
class SampleOrder:
    """The order of `count` samples over `epochs` epochs. Each epoch is a seeded shuffle.

    Example:
        SampleOrder(count=10, batch_size=4, epochs=2, seed=0).steps == 5
    """

    count: int
    batch_size: int
    epochs: int
    seed: int

    def __post_init__(self) -> None:
        if self.count * self.epochs < self.batch_size:
            raise DataError(
                f"{self.count} samples x {self.epochs} epochs do not fill one batch of "
                f"{self.batch_size}; lower the batch size"
            )

    @property
    def steps(self) -> int:
        """The number of optimizer steps over all epochs."""
        return self.count * self.epochs // self.batch_size

    def batch(self, step: int) -> tuple[int, ...]:
        """Return the indices of the `batch_size` samples of step `step`, counted from 0."""
        places = range(step * self.batch_size, (step + 1) * self.batch_size)
        return tuple(
            _permutation(self.count, self.seed, place // self.count)[place % self.count]
            for place in places
        )


@lru_cache(maxsize=2)
def _permutation(count: int, seed: int, epoch: int) -> tuple[int, ...]:
    order = list(range(count))
    random.Random(f"order/{seed}/{epoch}").shuffle(order)
    return tuple(order)


def micro_batches(
    batch: Sequence[int], lengths: Sequence[int], micro_batch: int, workers: int
) -> list[list[tuple[int, ...]]]:
    """Return the micro-batches of each worker, in the order in which they run.

    A micro-batch holds the indices of `micro_batch` samples. `lengths[i]` is the length of sample
    i. The i-th micro-batches of all workers have similar lengths, so no worker waits long for
    another worker. The size of the batch must be a multiple of micro_batch * workers.
    """
    assert len(batch) % (micro_batch * workers) == 0, (len(batch), micro_batch, workers)
    ordered = sorted(batch, key=lambda index: (-lengths[index], index))
    parts = [
        tuple(ordered[start : start + micro_batch]) for start in range(0, len(ordered), micro_batch)
    ]
    return [parts[worker::workers] for worker in range(workers)]
