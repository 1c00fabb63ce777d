"""Confidence intervals of a mean by the percentile bootstrap (Efron and Tibshirani, chapter 13)."""

from collections.abc import Sequence

import numpy as np

_BLOCK = 2_000_000
"""The largest number of resampled values that are in memory at once."""


def interval(
    values: Sequence[float], *, seed: int = 0, resamples: int = 2000, level: float = 0.95
) -> tuple[float, float]:
    """Return the confidence interval of the mean of `values`, which must not be empty.

    `level` is the confidence level. The interval depends only on the arguments, because `seed`
    determines the resampling.

    Example:
        interval([1.0] * 90 + [0.0] * 10)  # about (0.84, 0.95)
    """
    data = np.asarray(values, dtype=np.float64)
    assert data.size, "an interval needs at least one value"
    generator = np.random.default_rng(seed)
    rows = max(1, _BLOCK // data.size)
    blocks = [min(rows, resamples - start) for start in range(0, resamples, rows)]
    drawn = (generator.integers(data.size, size=(block, data.size)) for block in blocks)
    means = np.concatenate([data[index].mean(axis=1) for index in drawn])
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def difference(
    first: Sequence[float], second: Sequence[float], *, seed: int = 0, resamples: int = 2000
) -> tuple[float, float]:
    """Return the 95 % interval of mean(first) - mean(second) from paired values.

    A pair holds the scores of two policies on one question. The difficulty of a question affects
    both scores of a pair and cancels in their difference. The interval of the differences is
    therefore usually narrower than the intervals of the two means suggest.
    """
    pairs = zip(first, second, strict=True)
    return interval([left - right for left, right in pairs], seed=seed, resamples=resamples)
