"""Tests the time of a training step against hand computation."""

import pytest

from awares.passes import PassBudget
from awares_platform.config.largest_request import LargestRequest
from awares_platform.plan.assumptions import Assumptions
from awares_platform.plan.lengths import Lengths
from awares_platform.plan.ranks import Cost, RankTime, rank_time

LENGTHS = Lengths(
    text=2,
    reply=1,
    low=4,
    crop=2,
    full=16,
    answer=1,
    call_rate=0.25,
    widest=20,
    largest=LargestRequest(4, 12, 2, 2, 2),
)
"""An episode has 7 tokens, or 11 tokens with a request."""


LANGUAGE = Cost(language=float, tower=0.0, shared=False)
"""A token takes a second, and an image takes no time."""


def step(episodes: int, ranks: int, budget: PassBudget, *, packed: bool = False) -> RankTime:
    """Return the time of a step in which a token takes a second and images take no time."""
    limits = PassBudget(budget.rows, budget.tokens, packed)
    free = Assumptions(image_ms=0, crop_ms=0)
    return rank_time(episodes, ranks, limits, LENGTHS, free, LANGUAGE)


def test_a_padded_pass_costs_its_longest_row() -> None:
    assert (LENGTHS.plain, LENGTHS.called) == (7, 11)
    padded = step(4, 1, PassBudget(4))
    assert (padded.seconds, padded.passes) == (4 * 11, 1)
    assert padded.padding == pytest.approx(1 - (11 + 3 * 7) / 44)
    packed = step(4, 1, PassBudget(4), packed=True)
    assert (packed.seconds, packed.padding) == (11 + 3 * 7, 0)


def test_ranks_wait_for_the_longest_rank() -> None:
    uneven = step(4, 4, PassBudget(4))
    assert (uneven.seconds, uneven.passes, uneven.padding) == (11, 1, 0)
    assert uneven.waiting == pytest.approx(1 - (11 + 3 * 7) / (4 * 11))


def test_any_number_of_ranks_shares_the_rows() -> None:
    """Check that each of seven ranks has one pass, although 64 rows cannot be shared evenly."""
    seven = step(64, 7, PassBudget(16, 200))
    assert seven.passes == 1
    assert seven.seconds < 1.3 * (16 * 11 + 48 * 7) / 7


def test_the_first_pass_waits_for_its_images_and_others_only_for_slow_ones() -> None:
    def slow(image_ms: float) -> RankTime:
        budget = PassBudget(rows=2)
        assumed = Assumptions(image_ms=image_ms, crop_ms=1000)
        return rank_time(4, 1, budget, LENGTHS, assumed, LANGUAGE, sharing=2)

    computing = 2 * 11 + 2 * 7
    hidden = slow(3000)
    assert hidden.images_s == pytest.approx(3 + 1)
    assert hidden.seconds == pytest.approx(4 + computing)
    longer = slow(30_000)
    # The first pass waits 31 s for its images and computes for 22 s. During these 22 s, a thread
    # begins to prepare the image of the second pass, which takes 30 s. The second pass waits 8 s.
    assert longer.images_s == pytest.approx(31 + (30 - 22))
    assert longer.prepared_s == pytest.approx(31 + 30)


def test_across_steps_only_slow_images_make_the_ranks_wait() -> None:
    def slow(image_ms: float) -> RankTime:
        budget = PassBudget(rows=2)
        assumed = Assumptions(image_ms=image_ms, crop_ms=1000)
        return rank_time(4, 1, budget, LENGTHS, assumed, LANGUAGE, across_steps=True)

    assert (slow(3000).images_s, slow(3000).seconds) == (0, 2 * 11 + 2 * 7)
    # The images of the first pass take 17 s. The last pass of the previous step, during which they
    # are prepared, takes 14 s. The images of the second pass take 16 s, less than the 22 s that the
    # first pass takes.
    assert slow(8000).images_s == pytest.approx(17 - 14)


@pytest.mark.parametrize(("shared", "low_views"), [(True, 2), (False, 4)])
def test_a_shared_tower_computes_a_low_view_once_a_group(shared: bool, low_views: int) -> None:
    """Check one pass of four episodes in two groups. One of the episodes has a crop."""
    free, tower = Assumptions(image_ms=0, crop_ms=0), Cost(lambda _: 0.0, 1.0, shared)
    found = rank_time(4, 1, PassBudget(4), LENGTHS, free, tower, sharing=2)
    assert found.seconds == low_views * LENGTHS.low + LENGTHS.crop


def test_a_step_of_several_updates_takes_as_many_times() -> None:
    assert RankTime(2.0, 0.5, 0.75, 0.1, 0.2, 3).times(2) == RankTime(4.0, 1.0, 1.5, 0.1, 0.2, 6)


def test_a_batch_that_is_ready_early_has_its_images_ready() -> None:
    def ahead(period: float, prepared: float = 0.5) -> tuple[float, float]:
        step = RankTime(2.0, 0.5, prepared, 0.1, 0.2, 3).ahead(period)
        assert step.seconds - step.images_s == 1.5
        return step.seconds, step.images_s

    assert ahead(1.0) == (1.5, 0.0)
    # The ranks compute for 1.5 s. A batch becomes ready every 1.75 s, so they wait for 0.25 s.
    assert ahead(1.75) == (1.75, 0.25)
    assert ahead(9.0) == (2.0, 0.5)
    # The thread that prepares images needs 1.75 s for a step, so the ranks wait for 0.25 s.
    assert ahead(1.0, prepared=1.75) == (1.75, 0.25)
