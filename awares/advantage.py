"""Group-relative advantages (paper, section 3.4)."""

import math
from collections.abc import Sequence


def advantages(rewards_G: Sequence[float], eps: float = 1e-4) -> list[float]:
    """(R - mean) / (std + eps) within one group of G episodes of the same prompt.

    The standard deviation is the sample's (G - 1 below), and eps 1e-4, as in TRL, with which the paper was trained. A group of one, or
    of equal rewards, teaches nothing: zeros. Dividing by the deviation is what lets the tiny area cost act when answers tie.

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
