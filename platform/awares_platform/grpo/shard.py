"""Splits a batch evenly over optimizer steps, ranks and forward passes.

    episodes --merge identical sequences--> longest first --deal--> minibatches
             --deal--> ranks and passes (awares/passes.py)

The learner computes the logprobs of identical sequences only once.
"""

from dataclasses import dataclass

from awares.carried import Carried
from awares.episode import Episode
from awares.passes import PassBudget, deal
from awares.view import ImageView
from awares_platform.grpo.group import Member, Position, StepBatch


@dataclass(frozen=True, slots=True)
class TrainSequence(Carried):
    """A token sequence, with all episodes that share its tokens, image and views.

    Example:
        TrainSequence((episode, twin), advantages=(0.5, 0.5))
    """

    episodes: tuple[Episode, ...]
    advantages: tuple[float, ...]
    """One value per episode."""
    filler: bool = False
    """True if the sequence only gives its rank one more forward pass, with a loss of 0."""


@dataclass(frozen=True, slots=True)
class Minibatch:
    """One rank's part of one optimizer step.

    Every rank has the same number of passes, because ZeRO's ranks communicate in each pass.

    Example:
        Minibatch(passes=((sequence, other), (third,)), total=8, tokens=120)
    """

    passes: tuple[tuple[TrainSequence, ...], ...]
    """The sequences of each forward pass."""
    total: int
    """The number of episodes in the step over all ranks, without fillers."""
    tokens: int
    """The number of sampled tokens of these episodes."""


@dataclass(frozen=True, slots=True)
class StepShard:
    """One rank's part of a learner step, and the run's position after the step.

    If `keep` is true, the rank first writes a snapshot of the weights that the step updates.

    Example:
        StepShard(step=12, minibatches=(minibatch,), position=Position(26))
    """

    step: int
    minibatches: tuple[Minibatch, ...]
    position: Position
    keep: bool = False


def shown(shard: StepShard) -> tuple[ImageView, ...]:
    """Return the distinct views of a shard, in the order in which the passes need them."""
    episodes = (
        sequence.episodes[0]
        for minibatch in shard.minibatches
        for sequences in minibatch.passes
        for sequence in sequences
    )
    views = (
        ImageView(episode.image, episode.image_size, view)
        for episode in episodes
        for turn in episode.turns
        for view in turn.views
    )
    return tuple(dict.fromkeys(views))


def shards(batch: StepBatch, ranks: int, minibatches: int, budget: PassBudget) -> list[StepShard]:
    """Split `batch` into one shard for each rank, and return the shard of rank r at index r.

    `minibatches` is the number of optimizer steps. Episodes without an advantage or without sampled
    tokens are left out.
    """
    sequences = sorted(_merged(batch), key=lambda item: length(item.episodes[0]), reverse=True)
    cuts = [_cut(sequences[index::minibatches], ranks, budget) for index in range(minibatches)]
    return [
        StepShard(batch.step, tuple(cut[rank] for cut in cuts), batch.position)
        for rank in range(ranks)
    ]


def _merged(batch: StepBatch) -> list[TrainSequence]:
    """Return one sequence for each distinct combination of image, views and tokens."""
    found: dict[tuple, list[Member]] = {}
    for member in (member for group in batch.groups for member in group.members):
        if member.advantage is not None and member.episode.turns:
            turns = tuple(
                (turn.packed.context_ids, turn.views, turn.packed.sampled_ids)
                for turn in member.episode.turns
            )
            found.setdefault((member.episode.image, turns), []).append(member)
    return [_sequence(members) for members in found.values()]


def _sequence(members: list[Member]) -> TrainSequence:
    episodes = tuple(member.episode for member in members)
    return TrainSequence(episodes, tuple(member.advantage or 0.0 for member in members))


def length(episode: Episode) -> int:
    """Return the total number of text and visual tokens of an episode, without placeholders."""
    text = sum(
        turn.packed.context_count - len(turn.views) + turn.packed.sampled_count
        for turn in episode.turns
    )
    return episode.visual_tokens + text


def _cut(sequences: list[TrainSequence], ranks: int, budget: PassBudget) -> list[Minibatch]:
    episodes = [episode for item in sequences for episode in item.episodes]
    tokens = sum(episode.packed.sampled_count for episode in episodes)
    hands = deal([length(item.episodes[0]) for item in sequences], budget, ranks)
    # Ranks with fewer passes get the shortest sequence as filler.
    filler = [TrainSequence(item.episodes[:1], (0.0,), filler=True) for item in sequences[-1:]]
    cut = []
    for hand in hands:
        passes = [tuple(sequences[place] for place in one) for one in hand]
        passes += [tuple(filler)] * (len(hands[0]) - len(passes))
        cut.append(Minibatch(tuple(passes), len(episodes), tokens))
    return cut
