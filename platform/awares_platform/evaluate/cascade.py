"""Policies of two passes: one on the low-resolution view, then a fresh one on the whole image.

    first pass --enough?--yes--> its answer
                        --no---> the base policy's answer at full resolution

Both passes count, in visual tokens and in latency. `escalate` asks the trained policy whether the
first view is enough (as in VisionThink, arXiv 2507.13348). `threshold` asks the probability of the
base policy's own answer. Neither needs the engine: the passes are those of other policies.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from awares.episode import EpisodeSpec, Turn, finish
from awares_platform.method.answers import confidence
from awares_platform.method.play import Played


def escalate(
    asked: Sequence[Played],
    full: Sequence[Played],
    decision_s: Mapping[str, float],
    spec: EpisodeSpec,
) -> list[Played]:
    """Return the `full` pass for every question for which `asked` made a request.

    `asked` are the episodes of the trained policy. `decision_s` holds the seconds of its first turn
    by sample id, where they were measured. `spec` describes the episodes of `asked`.
    """
    return [
        _fresh(first, again, decision_s.get(first.sample.sample_id, 0.0), _first(first), spec)
        if first.episode is not None and first.episode.crops
        else first
        for first, again in zip(asked, full, strict=True)
    ]


def threshold(
    low: Sequence[Played], full: Sequence[Played], budget: float, spec: EpisodeSpec
) -> list[Played]:
    """Return the `full` pass for the questions of which `low` is least sure, within `budget`.

    `budget` is the mean rtr_token to spend. The questions with the lowest confidence come first.
    """
    order = sorted(range(len(low)), key=lambda index: confidence(low[index]))
    left = budget * len(low) - sum(_rtr(one) for one in low)
    unsure: set[int] = set()
    for index in order:
        left -= _rtr(full[index])
        if left < 0:
            break
        unsure.add(index)
    return [
        _fresh(first, again, first.latency_s, _whole(first, spec), spec)
        if index in unsure and first.episode is not None
        else first
        for index, (first, again) in enumerate(zip(low, full, strict=True))
    ]


def _rtr(played: Played) -> float:
    return 0.0 if played.episode is None else played.episode.rtr_token


def _first(played: Played) -> Turn:
    """The turn in which the policy asks, at the cost of the whole image."""
    assert played.episode is not None, "only a played question has a request"
    return replace(played.episode.turns[0], area=1.0)


def _whole(played: Played, spec: EpisodeSpec) -> Turn:
    """The first turn, as if it had asked for the whole image."""
    assert played.episode is not None, "only a played question has a first turn"
    size = played.episode.image_size
    request = spec.environment.cover([(0, 0, *size)], size)
    regions = () if request is None else request.regions
    return replace(played.episode.turns[0], crops=regions, stop=None, area=1.0)


def _fresh(first: Played, again: Played, first_s: float, turn: Turn, spec: EpisodeSpec) -> Played:
    """Join the first pass, whose turn is `turn`, with the second, which starts afresh."""
    if first.episode is None or again.episode is None:
        return again
    full = again.episode
    turns, size = (turn, *full.turns), first.episode.image_size
    episode = finish(first.sample, size, turns, full.answer, full.stop, spec, full.error)
    return Played(first.sample, episode, first_s + again.latency_s, again.fault)
