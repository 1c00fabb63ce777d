"""Confidence intervals by the percentile bootstrap, seeded."""

from collections.abc import Sequence

import numpy as np

_BLOCK = 2_000_000  # resampled values held at once, so that memory does not grow with the sample


def interval(
    values: Sequence[float], *, seed: int = 0, resamples: int = 2000, level: float = 0.95
) -> tuple[float, float]:
    """The interval of the mean of `values` (at least one) at `level`.

    Example:
        interval([1.0] * 90 + [0.0] * 10)  # about (0.84, 0.95)
    """
    data = np.asarray(values, dtype=np.float64)
    assert data.size, "an interval needs at least one value"
    generator = np.random.default_rng(seed)
    rows = max(1, _BLOCK // data.size)
    blocks = [min(rows, resamples - start) for start in range(0, resamples, rows)]
    means = np.concatenate(
        [
            data[generator.integers(data.size, size=(block, data.size))].mean(axis=1)
            for block in blocks
        ]
    )
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def difference(
    first: Sequence[float], second: Sequence[float], *, seed: int = 0, resamples: int = 2000
) -> tuple[float, float]:
    """The 95 % interval of mean(first) - mean(second) over paired values: two policies on the same questions."""
    return interval(
        [left - right for left, right in zip(first, second, strict=True)],
        seed=seed,
        resamples=resamples,
    )
