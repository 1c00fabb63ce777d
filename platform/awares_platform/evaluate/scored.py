"""Scores played episodes with the benchmark's score and with GRPO's reward."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import get_args

from awares.episode import Episode, StopReason
from awares.evaluation.scorers import Version, score_answer, scorer
from awares.reward import Reward
from awares.sample import Sample
from awares_platform.method.play import Played


@dataclass(frozen=True, slots=True)
class Scored:
    """One question answered by one policy.

    Example:
        Scored(sample, labelled, episode, score=1.0, latency_s=0.021, reward=10.0)
    """

    sample: Sample
    """The question with its own annotation."""
    labelled: Sample
    """The same sample with the label and crops that this evaluation derives (labels.py)."""
    episode: Episode
    score: float
    latency_s: float | None
    """Duration of the episode, or None unless the question ran alone on the engine."""
    reward: float | None = None
    """Reward of the episode, or None if `labelled` has no label or the episode failed."""
    by_version: Mapping[str, float] = field(default_factory=dict)
    """Score under each version of the scorers."""


def played(scored: Sequence[Scored]) -> list[Episode]:
    """Return the episodes without the failed ones, whose cost is unknown."""
    return [one.episode for one in scored if one.episode.stop is not StopReason.ERROR]


def score_all(
    rows: Sequence[Played],
    labelled: dict[str, Sample],
    name: str,
    alone: set[str],
    reward: Reward,
    version: str = "2026-08",
) -> list[Scored]:
    """Score a policy's episodes. An episode without an answer scores 0.

    `labelled` maps a sample's id to the sample with its label. `name` is the scorer of samples that
    name none. `alone` holds the ids of the samples with a measured latency.
    """
    rewards = _rewards(rows, labelled, reward)
    scorers = {known: scorer(name, known) for known in get_args(Version)}
    found = []
    for one, episode in _with_episodes(rows):
        sample, identity = one.sample, one.sample.sample_id
        scores = {
            known: score_answer(episode.answer, sample, default, known)
            for known, default in scorers.items()
        }
        latency_s = one.latency_s if identity in alone else None
        values = (scores[version], latency_s, rewards.get(identity), scores)
        found.append(Scored(sample, labelled[identity], episode, *values))
    return found


def _rewards(
    rows: Sequence[Played], labelled: dict[str, Sample], reward: Reward
) -> dict[str, float]:
    """Return a dict from sample ids to total rewards.

    A sample without a label and a sample with a failed episode have no reward.
    """
    pairs = [
        (episode, labelled[one.sample.sample_id])
        for one, episode in _with_episodes(rows)
        if episode.stop is not StopReason.ERROR
    ]
    known = [(episode, sample) for episode, sample in pairs if sample.label is not None]
    values = reward([episode for episode, _ in known], [sample for _, sample in known])
    pairs_valued = zip(known, values, strict=True)
    return {sample.sample_id: value.total for (_, sample), value in pairs_valued}


def _with_episodes(rows: Sequence[Played]) -> Iterator[tuple[Played, Episode]]:
    for one in rows:
        assert one.episode is not None, "questions without an episode were left out"
        yield one, one.episode
