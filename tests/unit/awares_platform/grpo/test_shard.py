from collections.abc import Callable
from dataclasses import replace

import pytest

from awares.episode import Episode
from awares.passes import PassBudget
from awares.reward import RewardValue
from awares.sample import Sample
from awares.view import ImageView, View
from awares_platform.grpo.group import Group, Member, Outcome, Position, Prompt, StepBatch
from awares_platform.grpo.shard import StepShard, length, shards, shown

NOTHING = RewardValue(0.0, {})


@pytest.fixture
def batch(make_episode: Callable[..., Episode], samples: list[Sample]) -> StepBatch:
    """Return a batch with seven usable episodes of 8 to 14 tokens, and one unusable episode.

    The advantage of each usable episode equals its number of tokens.
    """
    episodes = [make_episode(extra=extra) for extra in (3, 0, 6, 1, 5, 2, 4, 9)]
    members = tuple(
        Member(episode, NOTHING, True, float(length(episode))) for episode in episodes[:7]
    )
    left_out = Member(episodes[7], NOTHING, False, None)
    return StepBatch(
        4, (Group(Prompt(0, 0, samples[0]), (*members, left_out), Outcome.READY),), Position(1)
    )


def advantages(shard: StepShard) -> list[list[list[float]]]:
    return [
        [[item.advantages[0] for item in chunk if not item.filler] for chunk in part.passes]
        for part in shard.minibatches
    ]


def test_length_counts_images_expanded(
    make_episode: Callable[..., Episode], call_episode: Episode
) -> None:
    # Three numbers are added for each turn: context ids without image placeholders, visual tokens,
    # and sampled tokens.
    assert length(make_episode()) == 2 + 4 + 2
    assert length(call_episode) == 2 + 4 + 1 + 1 + 12 + 2


def test_episodes_that_sampled_the_same_tokens_share_a_sequence(
    make_episode: Callable[..., Episode], samples: list[Sample]
) -> None:
    early, late, other = make_episode(version=0), make_episode(version=3), make_episode(extra=1)
    members = tuple(
        Member(episode, NOTHING, True, value)
        for episode, value in ((early, 0.5), (other, -1.0), (late, 0.75))
    )
    (shard,) = shards(
        StepBatch(0, (Group(Prompt(0, 0, samples[0]), members, Outcome.READY),), Position(1)),
        1,
        1,
        PassBudget(8),
    )
    (chunk,) = shard.minibatches[0].passes
    assert [(item.episodes, item.advantages) for item in chunk] == [
        ((other,), (-1.0,)),
        ((early, late), (0.5, 0.75)),
    ]
    assert (shard.minibatches[0].total, shard.minibatches[0].tokens) == (3, 6)


def test_passes_hold_episodes_of_like_length_longest_first(batch: StepBatch) -> None:
    (shard,) = shards(batch, ranks=1, minibatches=1, budget=PassBudget(3))
    assert advantages(shard) == [[[14, 13], [12, 11], [10, 9, 8]]]
    assert (shard.step, shard.position, shard.minibatches[0].total) == (4, Position(1), 7)


def test_ranks_share_alike_and_make_equally_many_passes(batch: StepBatch) -> None:
    first, second = shards(batch, ranks=2, minibatches=1, budget=PassBudget(3))
    assert advantages(first) == [[[14], [11, 10]]]
    assert advantages(second) == [[[13, 12], [9, 8]]]
    assert [shard.minibatches[0].total for shard in (first, second)] == [7, 7]


def test_ranks_without_a_sequence_get_a_filler(batch: StepBatch) -> None:
    cut = shards(batch, ranks=8, minibatches=1, budget=PassBudget(3))
    assert [len(shard.minibatches[0].passes) for shard in cut] == [1] * 8
    ((filler,),) = cut[-1].minibatches[0].passes
    assert filler.filler and filler.advantages == (0.0,)
    totals = [(shard.minibatches[0].total, shard.minibatches[0].tokens) for shard in cut]
    assert totals == [(7, 14)] * 8


def test_minibatches_are_dealt_before_ranks(batch: StepBatch) -> None:
    (shard,) = shards(batch, ranks=1, minibatches=2, budget=PassBudget(8))
    assert advantages(shard) == [[[14, 12, 10, 8]], [[13, 11, 9]]]
    assert [part.total for part in shard.minibatches] == [4, 3]
    # Each episode samples two tokens.
    assert [part.tokens for part in shard.minibatches] == [8, 6]


def test_a_batch_without_usable_episodes_makes_no_passes(
    batch: StepBatch, samples: list[Sample]
) -> None:
    useless = Group(Prompt(0, 0, samples[0]), batch.groups[0].members[7:], Outcome.READY)
    (shard,) = shards(
        StepBatch(0, (useless,), Position()), ranks=1, minibatches=1, budget=PassBudget(2)
    )
    assert shard.minibatches[0].passes == () and shard.minibatches[0].total == 0


def test_the_shown_views_come_once_and_in_the_order_of_the_passes(
    make_episode: Callable[..., Episode], call_episode: Episode, samples: list[Sample]
) -> None:
    other = replace(make_episode(), image="cd" * 32)
    members = tuple(
        Member(episode, NOTHING, True, 1.0) for episode in (make_episode(), other, call_episode)
    )
    group = Group(Prompt(0, 0, samples[0]), members, Outcome.READY)
    (shard,) = shards(StepBatch(0, (group,), Position(1)), 1, 1, PassBudget(1))
    # The longest sequence comes first. Its low view is also the view of the second sequence.
    assert shown(shard) == (
        ImageView("ab" * 32, (112, 112), View(None)),
        ImageView("ab" * 32, (112, 112), View((0, 0, 56, 56))),
        ImageView("ab" * 32, (112, 112), View((0, 0, 112, 56))),
        ImageView("cd" * 32, (112, 112), View(None)),
    )
