"""Divides sequences among ranks and forward passes, within a budget of rows and tokens.

    sequences --longest first--> cut into passes of similar cost --deal--> ranks

The sequences of one pass have similar lengths, so they need little padding. The n-th passes of all
ranks have similar costs, so no rank waits long.
"""

from collections.abc import Sequence
from dataclasses import dataclass

Indices = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PassBudget:
    """The limits of one forward pass.

    Example:
        PassBudget(rows=8, tokens=16_384, packed=False)
    """

    rows: int
    """The largest number of sequences."""
    tokens: int | None = None
    """The largest number of tokens, or None for no limit. A longer sequence gets its own pass."""
    packed: bool = False
    """Whether a pass has no padding. Otherwise, each sequence costs as much as the longest of the
    pass."""


def deal(lengths: Sequence[int], budget: PassBudget, ranks: int) -> list[list[Indices]]:
    """Return a list of passes for each rank. A pass is a tuple of indices into `lengths`.

    `lengths` holds the number of tokens of each sequence. With too few sequences, the last ranks
    get one pass fewer.
    """
    if not lengths:
        return [[] for _ in range(ranks)]
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    most = sum(lengths) if budget.packed else lengths[order[0]] * len(order)
    limit = min(budget.tokens or most, most)
    passes = _cut(order, lengths, budget, limit)
    wanted = min(-(-len(passes) // ranks) * ranks, len(order))
    # Find the smallest limit with which `_cut` makes at most `wanted` passes. With this limit, the
    # passes have similar costs.
    low, high = 1, limit
    while low < high:
        middle = (low + high) // 2
        if len(_cut(order, lengths, budget, middle)) <= wanted:
            high = middle
        else:
            low = middle + 1
    passes = _cut(order, lengths, budget, low)
    while len(passes) < wanted:
        _split(passes)
    return [passes[rank::ranks] for rank in range(ranks)]


def _cut(
    order: Sequence[int], lengths: Sequence[int], budget: PassBudget, limit: int
) -> list[Indices]:
    """Cut `order` into as few passes as possible.

    A pass has at most `budget.rows` sequences. If it has more than one sequence, it has at most
    `limit` tokens.
    """
    passes: list[list[int]] = []
    held = 0
    for index in order:
        held += lengths[index] if budget.packed or not passes else lengths[passes[-1][0]]
        if passes and len(passes[-1]) < budget.rows and held <= limit:
            passes[-1].append(index)
        else:
            passes.append([index])
            held = lengths[index]
    return [tuple(one) for one in passes]


def _split(passes: list[Indices]) -> None:
    """Split the pass with the most sequences into two passes."""
    place = max(range(len(passes)), key=lambda index: len(passes[index]))
    whole = passes[place]
    middle = (len(whole) + 1) // 2
    passes[place : place + 1] = [whole[:middle], whole[middle:]]
