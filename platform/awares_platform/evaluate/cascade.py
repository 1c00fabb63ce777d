"""Builds two-pass policies: a pass at low resolution, and for some questions a second pass.

In the second pass, the base policy answers at full resolution. This pass starts with an empty
context, so a question with two passes costs the visual tokens and the latencies of both.

`escalate` makes a second pass if the trained policy requests crops (as in VisionThink, arXiv
2507.13348). `threshold` makes a second pass if the base policy's first answer has a low
probability. Both functions need no engine, because they combine episodes of other policies.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from awares.episode import StopReason, Turn, finish
from awares.episode_spec import EpisodeSpec
from awares_platform.method.answers import confidence
from awares_platform.method.play import Played

PlayedBy = dict[str, list[Played]]
"""Maps the name of each policy to its questions with their episodes."""


def join(
    policies: Sequence[str], played: PlayedBy, decision_s: Mapping[str, float], spec: EpisodeSpec
) -> PlayedBy:
    """Return `played` with the two-pass policies added.

    `decision_s` maps a sample's id to the seconds of the first turn of "escalate". `spec` holds the
    settings of the episodes of "awares". The budget of "threshold" is the mean rtr_token of
    "awares".
    """
    joined = dict(played)
    if "escalate" in policies:
        joined["escalate"] = escalate(played["awares"], played["full"], decision_s, spec)
    if "threshold" in policies:
        known = [_rtr(one) for one in played["awares"] if _is_played(one)]
        budget = sum(known) / len(known) if known else 0.0
        joined["threshold"] = threshold(played["low"], played["full"], budget, spec)
    return joined


def escalate(
    asked: Sequence[Played],
    full: Sequence[Played],
    decision_s: Mapping[str, float],
    spec: EpisodeSpec,
) -> list[Played]:
    """Add a second pass, taken from `full`, to every episode of `asked` with a granted request.

    `asked` holds the trained policy's episodes, and `spec` their settings. `decision_s` maps a
    sample's id to the seconds of its first turn.
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
    """Add a second pass, taken from `full`, to the least confident episodes of `low`.

    `budget` is the largest mean rtr_token of the result. Failed episodes stay unchanged, and do not
    count for this mean.
    """
    known = [index for index, one in enumerate(low) if _is_played(one)]
    order = sorted(known, key=lambda index: confidence(low[index]))
    left = sum(budget - _rtr(low[index]) for index in known)
    unsure: set[int] = set()
    for index in order:
        # If the second pass failed, the question no longer counts for the mean.
        again = full[index]
        left -= _rtr(again) if _is_played(again) else budget - _rtr(low[index])
        if left < 0:
            break
        unsure.add(index)
    return [
        _fresh(first, again, first.latency_s, _whole(first, spec), spec)
        if index in unsure
        else first
        for index, (first, again) in enumerate(zip(low, full, strict=True))
    ]


def _is_played(played: Played) -> bool:
    return played.episode is not None and played.episode.stop is not StopReason.ERROR


def _rtr(played: Played) -> float:
    return 0.0 if played.episode is None else played.episode.rtr_token


def _first(played: Played) -> Turn:
    """Return the first turn, with the whole image as its requested area."""
    assert played.episode is not None, "only a played question has a request"
    return replace(played.episode.turns[0], area=1.0)


def _whole(played: Played, spec: EpisodeSpec) -> Turn:
    """Return the first turn, changed as if it had requested the whole image."""
    assert played.episode is not None, "only a played question has a first turn"
    size = played.episode.image_size
    request = spec.environment.cover([(0, 0, *size)], size)
    regions = () if request is None else request.regions
    return replace(played.episode.turns[0], crops=regions, stop=None, area=1.0)


def _fresh(first: Played, again: Played, first_s: float, turn: Turn, spec: EpisodeSpec) -> Played:
    """Join the passes `first` and `again` of a question into one episode.

    `turn` replaces the turns of the first pass, and `first_s` is the duration of this pass. If a
    pass has no episode, return `again`.
    """
    if first.episode is None or again.episode is None:
        return again
    full = again.episode
    turns, size = (turn, *full.turns), first.episode.image_size
    episode = finish(first.sample, size, turns, full.answer, full.stop, spec, full.error)
    return Played(first.sample, episode, first_s + again.latency_s, again.fault)
