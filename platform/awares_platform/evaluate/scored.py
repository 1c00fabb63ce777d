"""Played episodes with the benchmark's score, and with the reward that training would give."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from awares.episode import Episode, StopReason
from awares.evaluation.scorers import Scorer
from awares.reward import Reward
from awares.sample import Sample
from awares_platform.method.play import Played


@dataclass(frozen=True, slots=True)
class Scored:
    """One question answered by one policy.

    `sample` carries the benchmark's annotation. `labelled` carries the label and crops from this
    evaluation's own low and full answers. `latency_s` is None unless the question was alone on the
    engine, `reward` is None without a label.

    Example:
        Scored(sample, labelled, episode, score=1.0, latency_s=0.021, reward=10.0)
    """

    sample: Sample
    labelled: Sample
    episode: Episode
    score: float
    latency_s: float | None
    reward: float | None = None


def score_all(
    rows: Sequence[Played],
    labelled: dict[str, Sample],
    score: Scorer,
    alone: set[str],
    reward: Reward,
) -> list[Scored]:
    """Score a policy's episodes; an episode without an answer scores 0."""
    rewards = _rewards(rows, labelled, reward)
    return [
        Scored(
            one.sample,
            labelled[one.sample.sample_id],
            episode,
            score(episode.answer, (one.sample.answer,), one.sample.question)
            if episode.answer is not None
            else 0.0,
            one.latency_s if one.sample.sample_id in alone else None,
            rewards.get(one.sample.sample_id),
        )
        for one, episode in _with_episodes(rows)
    ]


def _rewards(
    rows: Sequence[Played], labelled: dict[str, Sample], reward: Reward
) -> dict[str, float]:
    """Totals by sample id; none for a sample without a label or a failed episode."""
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
