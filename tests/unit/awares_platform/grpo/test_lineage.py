"""Tests how many updates a version lags behind the newest one, after restarts of the learner."""

import pytest

from awares_platform.grpo.lineage import Lineage

TWICE = Lineage(((1, 3), (6, 9)), first=14)
"""The versions of three learners. A resumed learner publishes its checkpoint as a new version.

The second learner resumed from version 3, which it published as version 6. The third learner
resumed from version 9, which it published as version 14.
"""


@pytest.mark.parametrize(
    ("sampled", "updates"),
    [(16, 0), (14, 2), (9, 2), (7, 4), (6, 5), (3, 5), (1, 7)],
)
def test_updates_are_counted_along_the_kept_branches(sampled: int, updates: int) -> None:
    assert TWICE.behind(sampled, 16) == updates


@pytest.mark.parametrize("sampled", [0, 4, 5, 10, 13])
def test_an_abandoned_version_is_stale_at_any_bound(sampled: int) -> None:
    assert TWICE.behind(sampled, 14) is None
    assert TWICE.stale({14, sampled}, 14, bound=1000)


def test_a_checkpoint_keeps_the_spans_up_to_its_version() -> None:
    assert Lineage((), first=1).until(3) == ((1, 3),)
    assert TWICE.until(20) == ((1, 3), (6, 9), (14, 20))


def test_a_learner_without_a_checkpoint_has_the_weights_of_the_runs_first_version() -> None:
    restarted = Lineage((), first=5).rooted(1)
    assert (restarted.behind(1, 6), restarted.behind(2, 6)) == (1, None)
    assert Lineage((), first=1).rooted(1) == Lineage((), first=1) == Lineage((), 1).rooted(None)
    assert TWICE.rooted(1) is TWICE
