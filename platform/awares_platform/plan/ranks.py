"""Computes how long the ranks of a trainer work on one step, and how long they wait.

    typical episodes --deal--> passes of each rank --longest rank--> seconds of a pass
    images of a pass --one thread, one pass ahead--> seconds that the first pass waits

The dealing is that of the trainers (awares/passes.py), so any number of ranks is possible. All
ranks end a pass together, because ZeRO's collectives run once per pass.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from awares.passes import Indices, PassBudget, deal
from awares_platform.plan.assumptions import Assumptions
from awares_platform.plan.lengths import Lengths

Cost = Callable[[int, int], float]
"""The seconds of one sequence, by its number of tokens and its number of visual tokens."""


@dataclass(frozen=True, slots=True)
class RankTime:
    """The time of one step of a trainer, and the shares that do no useful work.

    `seconds` is the time of the whole step. In `images_s` of it the ranks wait for their images.
    `padding` is the share of the computed tokens that are padding. `waiting` is the share of the
    ranks' computing time that they spend waiting for the longest rank. `passes` is the number of
    passes of each rank.

    Example:
        RankTime(seconds=1.7, images_s=0.3, padding=0.06, waiting=0.09, passes=1)
    """

    seconds: float
    images_s: float
    padding: float
    waiting: float
    passes: int

    def times(self, count: int) -> "RankTime":
        """Return the time of `count` equal updates."""
        seconds, images = count * self.seconds, count * self.images_s
        return RankTime(seconds, images, self.padding, self.waiting, count * self.passes)


def rank_time(
    episodes: int,
    ranks: int,
    budget: PassBudget,
    lengths: Lengths,
    assumed: Assumptions,
    cost: Cost,
    sharing: int = 1,
) -> RankTime:
    """Compute the time of one update on `episodes` typical episodes.

    `sharing` is the number of episodes with the same image. They have similar lengths, so they are
    neighbours in the same pass. Episodes with equal tokens are not merged here, so a real step may
    be shorter.
    """
    called = round(lengths.call_rate * episodes)
    sizes = [lengths.called] * called + [lengths.plain] * (episodes - called)
    visual = [lengths.low + lengths.crop] * called + [lengths.low] * (episodes - called)

    def computing(one: Indices) -> float:
        longest = max(sizes[row] for row in one)
        widths = {row: sizes[row] if budget.packed else longest for row in one}
        return sum(cost(widths[row], visual[row]) for row in one)

    def preparing(one: Indices) -> float:
        crops = sum(row < called for row in one)
        return (math.ceil(len(one) / sharing) * assumed.image_ms + crops * assumed.crop_ms) / 1e3

    hands = deal(sizes, budget, ranks)
    rounds = [
        [hand[place] for hand in hands if place < len(hand)] for place in range(len(hands[0]))
    ]
    longest = [max(map(computing, passes)) for passes in rounds]
    images = [max(map(preparing, passes)) for passes in rounds]
    seconds = images[0] + sum(map(max, longest, [*images[1:], 0.0]))
    flat = [one for passes in rounds for one in passes]
    computed = sum(len(one) * max(sizes[row] for row in one) for one in flat)
    return RankTime(
        seconds=seconds,
        images_s=seconds - sum(longest),
        padding=0.0 if budget.packed else 1 - sum(sizes) / computed,
        waiting=1 - sum(map(computing, flat)) / (ranks * sum(longest)),
        passes=len(rounds),
    )
