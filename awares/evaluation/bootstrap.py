"""Confidence intervals of a mean by the percentile bootstrap (Efron and Tibshirani, chapter 13)."""

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

_BLOCK = 2_000_000
"""The largest number of resampled values that are in memory at once."""


def interval(
    values: Sequence[float],
    clusters: Sequence[Hashable] = (),
    *,
    seed: int = 0,
    resamples: int = 2000,
    level: float = 0.95,
) -> tuple[float, float]:
    """Return the confidence interval of the mean of `values`, which must not be empty.

    `clusters` holds the cluster of each value, such as the image of each question. A resample draws
    whole clusters (the cluster bootstrap of Cameron, Gelbach and Miller, 2008). Without `clusters`,
    a resample draws single values.

    Example:
        interval([1.0] * 90 + [0.0] * 10)  # about (0.84, 0.95)
    """
    assert len(values), "an interval needs at least one value"
    sums, sizes = _clustered(values, clusters)
    generator = np.random.default_rng(seed)
    rows = max(1, _BLOCK // sums.size)
    blocks = [min(rows, resamples - start) for start in range(0, resamples, rows)]
    drawn = (generator.integers(sums.size, size=(block, sums.size)) for block in blocks)
    means = [sums[index].sum(axis=1) / sizes[index].sum(axis=1) for index in drawn]
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _clustered(
    values: Sequence[float], clusters: Sequence[Hashable]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the sum and the number of the values of each cluster."""
    data = np.asarray(values, dtype=np.float64)
    if not clusters:
        return data, np.ones_like(data)
    numbers: dict[Hashable, int] = {}
    places = [numbers.setdefault(one, len(numbers)) for one in clusters]
    assert len(places) == data.size, "each value has a cluster"
    index = np.asarray(places)
    sums, sizes = (np.bincount(index, weights) for weights in (data, np.ones_like(data)))
    return sums.astype(np.float64), sizes.astype(np.float64)


def difference(
    first: Sequence[float],
    second: Sequence[float],
    clusters: Sequence[Hashable] = (),
    *,
    seed: int = 0,
    resamples: int = 2000,
) -> tuple[float, float]:
    """Return the 95 % interval of mean(first) - mean(second) from paired values.

    A pair holds the scores of two policies on one question. `clusters` holds the cluster of each
    pair, as in `interval`.
    """
    pairs = zip(first, second, strict=True)
    values = [left - right for left, right in pairs]
    return interval(values, clusters, seed=seed, resamples=resamples)
