"""Tests that each sequence is in one pass, and that all ranks get passes of similar cost."""

from hypothesis import given
from hypothesis import strategies as st

from awares.passes import PassBudget, deal

LENGTHS = st.lists(st.integers(1, 50), max_size=30)
BUDGETS = st.builds(
    PassBudget, st.integers(1, 6), st.none() | st.integers(1, 200), packed=st.booleans()
)


def cost(held: tuple[int, ...], lengths: list[int], packed: bool) -> int:
    found = [lengths[index] for index in held]
    return sum(found) if packed else len(found) * max(found)


@given(LENGTHS, BUDGETS, st.integers(1, 5))
def test_every_sequence_is_in_one_pass_within_the_budget(
    lengths: list[int], budget: PassBudget, ranks: int
) -> None:
    hands = deal(lengths, budget, ranks)
    held = [index for hand in hands for one in hand for index in one]
    assert len(hands) == ranks and sorted(held) == list(range(len(lengths)))
    for one in (one for hand in hands for one in hand):
        assert 1 <= len(one) <= budget.rows
        if budget.tokens and len(one) > 1:
            assert cost(one, lengths, budget.packed) <= budget.tokens


@given(LENGTHS, BUDGETS, st.integers(1, 5))
def test_all_ranks_make_equally_many_passes_unless_sequences_lack(
    lengths: list[int], budget: PassBudget, ranks: int
) -> None:
    counts = [len(hand) for hand in deal(lengths, budget, ranks)]
    assert max(counts) - min(counts) <= 1
    if max(counts) != min(counts):
        # If the ranks have different numbers of passes, every sequence has a pass of its own.
        assert sum(counts) == len(lengths)


def test_one_long_sequence_does_not_fill_a_pass_with_padding() -> None:
    lengths = [2000, 100, 100, 100, 100]
    assert deal(lengths, PassBudget(rows=5), 1) == [[(0, 1, 2, 3, 4)]]
    assert deal(lengths, PassBudget(rows=5, tokens=2100), 1) == [[(0,), (1, 2, 3, 4)]]
    # A packed pass has no padding, so three sequences fit in one pass instead of two.
    assert deal([30, 10, 10], PassBudget(rows=5, tokens=50), 1) == [[(0,), (1, 2)]]
    assert deal([30, 10, 10], PassBudget(rows=5, tokens=50, packed=True), 1) == [[(0, 1, 2)]]


def test_passes_have_similar_costs_rather_than_a_small_rest() -> None:
    assert deal([10] * 8, PassBudget(rows=6), 1) == [[(0, 1, 2, 3), (4, 5, 6, 7)]]
    first, second = deal([10] * 7, PassBudget(rows=3), 2)
    assert [len(one) for one in first] == [2, 2] and [len(one) for one in second] == [2, 1]
