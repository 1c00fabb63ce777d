"""Group-relative advantages (paper, section 3.4)."""

import math
from collections.abc import Sequence


def advantages(rewards_G: Sequence[float], eps: float = 1e-4) -> list[float]:
    """(R - mean) / (std + eps) within one group of G episodes of the same prompt.

    The standard deviation divides by G - 1, and eps is 1e-4, as in TRL, which the paper trains
    with. A group of one, or of equal rewards, teaches nothing: its advantages are 0. The division
    by the deviation lets the small area cost act if all answers are equally good.

    Example:
        advantages([1.0, 3.0], eps=0.0)  # [-0.707..., 0.707...]
    """
    count = len(rewards_G)
    if count < 2:
        return [0.0] * count
    mean = math.fsum(rewards_G) / count
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in rewards_G) / (count - 1))
    if deviation == 0.0:
        return [0.0] * count
    return [(value - mean) / (deviation + eps) for value in rewards_G]
