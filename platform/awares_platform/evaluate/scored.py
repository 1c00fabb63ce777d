"""Played episodes with what they are worth: the benchmark's score, and the reward that training would have given."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from awares.episode import Episode, StopReason
from awares.evaluation.scorers import Scorer
from awares.reward import Reward
from awares.sample import Sample
from awares_platform.engine.play import Played


@dataclass(frozen=True, slots=True)
class Scored:
    """One question, one policy. `sample` carries the benchmark's annotation, `labelled` the label and crops from this evaluation's
    own low and full answers. `latency_s` only where it was measured alone on the engine, `reward` only where there is a label.

    Example:
        Scored(sample, labelled, episode, 1.0, 0.021, 10.0)
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
    """Scores a policy's episodes; no answer scores 0."""
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
