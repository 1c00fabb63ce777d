"""Computes the group-relative advantages of GRPO (AwaRes, arXiv 2603.16932, section 3.4)."""

import math
from collections.abc import Sequence
from typing import Literal

AdvantageScale = Literal["group", "batch", "none"]
"""The divisor of the advantages.

With "group", the divisor is eps plus the standard deviation of the rewards of the group. With
"batch", it is eps plus the standard deviation of the rewards of the batch. With "none", the
advantages are not divided.
"""


def advantages(
    rewards_G: Sequence[float], eps: float = 1e-4, scale: AdvantageScale = "group"
) -> list[float]:
    """Return the advantage of each of the G episodes in a group. The episodes share one prompt.

    R is the reward of the episode. `mean` and `std` are those of the rewards of the group:

        (R - mean) / (std + eps)    for the scale "group", the default of TRL
        R - mean                    for the scale "none" (Dr. GRPO, arXiv 2503.20783, section 3.2)
        R - mean                    for the scale "batch"; divide the result by `batch_divisor`

    As in TRL 1.16, the variance has the divisor G - 1, and `eps` is 1e-4. If all rewards are equal,
    all advantages are 0. The scale "group" turns even tiny differences into advantages of about 1.

    Example:
        advantages([1.0, 3.0], eps=0.0)  # [-0.707..., 0.707...]
    """
    count, deviation = len(rewards_G), _deviation(rewards_G)
    if deviation == 0.0:
        return [0.0] * count
    mean = math.fsum(rewards_G) / count
    divisor = deviation + eps if scale == "group" else 1.0
    return [(value - mean) / divisor for value in rewards_G]


def batch_divisor(rewards_B: Sequence[float], eps: float = 1e-4) -> float:
    """Return the divisor of advantages for the scale "batch", which is std + eps.

    `std` is the standard deviation of all B rewards. Its variance has the divisor B - 1, as in TRL
    (arXiv 2508.08221).

    Example:
        batch_divisor([1.0, 3.0, 5.0], eps=0.0)  # 2.0
    """
    return _deviation(rewards_B) + eps


def _deviation(rewards: Sequence[float]) -> float:
    """Return the standard deviation, which is 0 for fewer than two rewards."""
    # Without this check, a rounding error of the mean could give equal rewards a small deviation.
    if len(set(rewards)) < 2:
        return 0.0
    mean = math.fsum(rewards) / len(rewards)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in rewards) / (len(rewards) - 1))
