"""Played episodes with what they are worth: the benchmark's score, and the reward that training would have given."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from awares.episode import Episode, StopReason
from awares.evaluation.scorers import Scorer
from awares.reward import RewardSettings, Similarity, reward
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


@dataclass(frozen=True, slots=True)
class Earned:
    """The reward that an episode would have earned in training; None without a label or an episode to judge.

    Example:
        Earned(SentenceSimilarity(), RewardSettings())(episode, labelled)
    """

    similarity: Similarity
    settings: RewardSettings

    def __call__(self, episode: Episode, labelled: Sample) -> float | None:
        if labelled.label is None or episode.stop is StopReason.ERROR:
            return None
        return reward(episode, labelled, self.similarity, self.settings).total


def score_all(
    rows: Sequence[Played],
    labelled: dict[str, Sample],
    score: Scorer,
    alone: set[str],
    earned: Earned,
) -> list[Scored]:
    """Scores a policy's episodes; no answer scores 0."""
    return [
        Scored(
            one.sample,
            labelled[one.sample.sample_id],
            episode,
            score(episode.answer, (one.sample.answer,), one.sample.question)
            if episode.answer is not None
            else 0.0,
            one.latency_s if one.sample.sample_id in alone else None,
            earned(episode, labelled[one.sample.sample_id]),
        )
        for one, episode in _with_episodes(rows)
    ]


def _with_episodes(rows: Sequence[Played]) -> Iterator[tuple[Played, Episode]]:
    for one in rows:
        assert one.episode is not None, "questions without an episode were left out"
        yield one, one.episode
