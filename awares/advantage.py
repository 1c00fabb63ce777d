"""Group-relative advantages (paper, section 3.4)."""

import math
from collections.abc import Sequence


def advantages(rewards_G: Sequence[float], eps: float = 1e-4) -> list[float]:
    """Return the advantage of each of the G episodes in a group. The episodes share one prompt.

    The advantage of an episode with the reward R is

        (R - mean) / (std + eps)

    where `mean` and `std` are taken over the rewards of the group. The paper trains with TRL, so
    this function has TRL's conventions: the variance has the divisor G - 1, and `eps` is 1e-4. If
    the group has one episode, or if all rewards are equal, the advantages are 0. If all answers of
    a group are equally good, the rewards may differ only by the small area cost. The division by
    `std` then scales even this small difference to advantages of about 1.

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
