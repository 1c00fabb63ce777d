"""Chooses the samples of each step.

The choice depends only on seed, sizes and step, so a run can resume from a step number. Only the
samples after the last full batch are left out.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from awares.errors import DataError
from awares.passes import PassBudget, deal


@dataclass(frozen=True, slots=True)
class SampleOrder:
    """The order of `count` samples over `epochs` epochs. Each epoch has its own random order.

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
        """Return the indices of the `batch_size` samples of a step. The first step is step 0."""
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
    batch: Sequence[int], lengths: Sequence[int], budget: PassBudget, workers: int
) -> list[list[tuple[int, ...]]]:
    """Return the micro-batches of each worker, in the order in which they run.

    A micro-batch holds indices of samples. `lengths[i]` is the length of sample i in tokens.
    """
    # Each worker needs a sample, because all workers must run the same number of forward passes.
    assert len(batch) >= workers, (len(batch), workers)
    ordered = sorted(batch)
    hands = deal([lengths[index] for index in ordered], budget, workers)
    return [[tuple(ordered[place] for place in one) for one in hand] for hand in hands]
