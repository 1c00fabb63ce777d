"""Computes how long the ranks of a trainer work on one step, and how long they wait.

A rank computes the typical episodes of a step in several passes. The plan and the trainers divide
the episodes among the ranks with the same function, `deal` in awares/passes.py. All ranks end a
pass together, because ZeRO's collectives run once per pass. A pass thus takes as long as its
slowest rank. One thread of a rank prepares the images of a pass during the previous pass. A pass
waits until its images are ready.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from awares.passes import Indices, PassBudget, deal
from awares_platform.plan.assumptions import Assumptions
from awares_platform.plan.lengths import Lengths


@dataclass(frozen=True, slots=True)
class Cost:
    """The seconds that a trainer takes for one sequence and for its images.

    Example:
        Cost(language=lambda tokens: 1e-4 * tokens, tower=2e-5, shared=True)
    """

    language: Callable[[int], float]
    """Returns the seconds of the language model for a number of tokens."""
    tower: float
    """Seconds of the vision tower per visual token."""
    shared: bool
    """Whether a pass computes a low view once for all sequences that show it (awares/tower.py)."""


@dataclass(frozen=True, slots=True)
class RankTime:
    """The time of one training step, and how much of it the ranks waste.

    Example:
        RankTime(
            seconds=1.7, images_s=0.3, prepared_s=0.4, padding=0.06, waiting=0.09, passes=1
        )
    """

    seconds: float
    """Duration of the whole step."""
    images_s: float
    """Seconds of the step in which the ranks wait for their images."""
    prepared_s: float
    """Seconds of the step in which a thread of a rank prepares images."""
    padding: float
    """Share of the computed tokens that are padding."""
    waiting: float
    """Mean time that a rank waits for other ranks, as a share of the time of all passes."""
    passes: int
    """Number of passes of each rank."""

    def times(self, count: int) -> "RankTime":
        """Return the total time of `count` updates. `self` is the time of one update."""
        return replace(
            self,
            seconds=count * self.seconds,
            images_s=count * self.images_s,
            prepared_s=count * self.prepared_s,
            passes=count * self.passes,
        )

    def ahead(self, period: float) -> "RankTime":
        """Return the time of a step whose images are prepared during the previous step.

        A new batch becomes ready every `period` seconds. If the ranks still train on the previous
        batch at that time, they wait less for the new images.
        """
        computing = self.seconds - self.images_s
        seconds = max(computing, self.prepared_s, min(self.seconds, period))
        return replace(self, seconds=seconds, images_s=seconds - computing)


def rank_time(
    episodes: int,
    ranks: int,
    budget: PassBudget,
    lengths: Lengths,
    assumed: Assumptions,
    cost: Cost,
    sharing: int = 1,
    across_steps: bool = False,
) -> RankTime:
    """Compute the time of one update on `episodes` typical episodes.

    `sharing` is the number of episodes with the same image. `across_steps` is true if the first
    pass's images are prepared during the previous step.
    """
    called = round(lengths.call_rate * episodes)
    sizes = [lengths.called] * called + [lengths.plain] * (episodes - called)

    def views(one: Indices, sharing: int) -> tuple[int, int]:
        """Return the numbers of low views and of crops in a pass."""
        return math.ceil(len(one) / sharing), sum(row < called for row in one)

    def computing(one: Indices) -> float:
        longest = max(sizes[row] for row in one)
        language = sum(cost.language(sizes[row] if budget.packed else longest) for row in one)
        low, crops = views(one, sharing if cost.shared else 1)
        return language + cost.tower * (low * lengths.low + crops * lengths.crop)

    def preparing(one: Indices) -> float:
        low, crops = views(one, sharing)
        return (low * assumed.image_ms + crops * assumed.crop_ms) / 1e3

    hands = deal(sizes, budget, ranks)
    rounds = [
        [hand[place] for hand in hands if place < len(hand)] for place in range(len(hands[0]))
    ]
    longest = [max(map(computing, passes)) for passes in rounds]
    images = [max(map(preparing, passes)) for passes in rounds]
    first, last = (0.0, images[0]) if across_steps else (images[0], 0.0)
    seconds = first + sum(map(max, longest, [*images[1:], last]))
    flat = [one for passes in rounds for one in passes]
    computed = sum(len(one) * max(sizes[row] for row in one) for one in flat)
    return RankTime(
        seconds=seconds,
        images_s=seconds - sum(longest),
        prepared_s=sum(images),
        padding=0.0 if budget.packed else 1 - sum(sizes) / computed,
        waiting=1 - sum(map(computing, flat)) / (ranks * sum(longest)),
        passes=len(rounds),
    )
