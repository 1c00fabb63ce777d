"""A batch cut into equal work: optimizer steps, ranks, forward passes.

    episodes --merge equal sequences--> longest first --deal--> minibatches --deal--> ranks --chunk--> passes of micro_batch

Episodes of a group often sample the same tokens after the same prompt: one forward and backward pass serves them all. Dealing a sorted list
in turn gives every rank the same mix of lengths, and every pass sequences of like length (little padding).
"""

from dataclasses import dataclass

from awares.episode import Episode
from awares_platform.grpo.group import Batch, Member, Position


@dataclass(frozen=True, slots=True)
class Trained:
    """A sequence to learn from, with every episode that sampled exactly it. `filler`: it only keeps this rank in step with the others and
    must not count.

    Example:
        Trained((episode, twin), advantages=(0.5, 0.5))
    """

    episodes: tuple[Episode, ...]
    advantages: tuple[float, ...]
    filler: bool = False


@dataclass(frozen=True, slots=True)
class Minibatch:
    """One rank's share of one optimizer step: `passes` equal in number on every rank (ZeRO's collectives run per pass); `total` counts
    the step's episodes over all ranks, fillers left out."""

    passes: tuple[tuple[Trained, ...], ...]
    total: int


@dataclass(frozen=True, slots=True)
class Shard:
    """One rank's share of a learner step, and the run's position once it is trained on."""

    step: int
    minibatches: tuple[Minibatch, ...]
    position: Position


def shards(batch: Batch, ranks: int, minibatches: int, micro_batch: int) -> list[Shard]:
    """The shares of all `ranks` of `batch`. Episodes without an advantage or without sampled tokens are left out."""
    trained = sorted(_merged(batch), key=lambda item: length(item.episodes[0]), reverse=True)
    cuts = [_cut(trained[index::minibatches], ranks, micro_batch) for index in range(minibatches)]
    return [
        Shard(batch.step, tuple(cut[rank] for cut in cuts), batch.position) for rank in range(ranks)
    ]


def _merged(batch: Batch) -> list[Trained]:
    """One item per distinct sequence: same image, views and tokens."""
    found: dict[tuple, list[Member]] = {}
    for member in (member for group in batch.groups for member in group.members):
        if member.advantage is not None and member.episode.turns:
            turns = tuple(
                (turn.context_ids, turn.views, turn.sampled_ids) for turn in member.episode.turns
            )
            found.setdefault((member.episode.image, turns), []).append(member)
    return [
        Trained(
            tuple(member.episode for member in same),
            tuple(member.advantage or 0.0 for member in same),
        )
        for same in found.values()
    ]


def length(episode: Episode) -> int:
    """Tokens of an episode with its images expanded."""
    return episode.visual_tokens + sum(
        len(turn.context_ids) - len(turn.views) + len(turn.sampled_ids) for turn in episode.turns
    )


def _cut(trained: list[Trained], ranks: int, micro_batch: int) -> list[Minibatch]:
    total = sum(len(item.episodes) for item in trained)
    hands = [trained[rank::ranks] for rank in range(ranks)]
    passes = -(-len(hands[0]) // micro_batch)
    filler = [Trained(item.episodes[:1], (0.0,), filler=True) for item in trained[-1:]]
    cut = []
    for hand in hands:
        chunks = [
            tuple(hand[start * micro_batch : (start + 1) * micro_batch] or filler)
            for start in range(passes)
        ]
        cut.append(Minibatch(tuple(chunks), total))
    return cut
