"""The reward of an episode: R = answer_weight * similarity(answer, truth) - cost (paper, section 3.4).

    label  call         cost
    HR     none         alpha_miss
    LR     none         0
    any    crops        alpha_use + lambda_area * area        (area: sum of the crops' area fractions)
    any    malformed    malformed_cost (in place of the above for a first turn, on top of the call's cost for a later one)

A request where only an answer is possible costs as much as a malformed one. Without an answer the answer part is 0.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from awares.crops import area_fraction
from awares.episode import Episode, StopReason
from awares.errors import DataError
from awares.sample import Label, Sample

Similarity = Callable[[Sequence[str], Sequence[str]], list[float]]
"""Pairs of texts (answers, truths) to similarities, 1 for the same meaning."""


@dataclass(frozen=True, slots=True)
class RewardSettings:
    """Weights of the reward. Defaults are those of the paper; its supplement alone names the answer weight of 10.

    Example:
        RewardSettings(answer_weight=10.0, alpha_miss=2.0)
    """

    answer_weight: float = 10.0
    alpha_miss: float = 2.0
    alpha_use: float = 0.25
    lambda_area: float = 0.01
    malformed_cost: float = 2.0


@dataclass(frozen=True, slots=True)
class Reward:
    """`total` = `answer` - `cost`.

    Example:
        Reward(9.74, 10.0, 0.26)
    """

    total: float
    answer: float
    cost: float


def reward(
    episode: Episode, sample: Sample, similarity: Similarity, settings: RewardSettings
) -> Reward:
    """The reward of one episode, see `rewards`."""
    return rewards([episode], [sample], similarity, settings)[0]


def rewards(
    episodes: Sequence[Episode],
    samples: Sequence[Sample],
    similarity: Similarity,
    settings: RewardSettings,
) -> list[Reward]:
    """The rewards of aligned episodes and samples, with one call of `similarity`.

    An episode that stopped by ERROR says nothing about the policy: its reward is 0, and callers leave it out of its group.
    Raises DataError for a sample without a label.
    """
    answered = [
        index
        for index, episode in enumerate(episodes)
        if episode.answer and episode.stop is not StopReason.ERROR
    ]
    values = similarity(
        [episodes[index].answer or "" for index in answered],
        [samples[index].answer for index in answered],
    )
    similar = dict(zip(answered, values, strict=True))
    scored = []
    for index, (episode, sample) in enumerate(zip(episodes, samples, strict=True)):
        answer = settings.answer_weight * similar.get(index, 0.0)
        cost = tool_cost(episode, sample, settings)
        scored.append(Reward(answer - cost, answer, cost))
    return scored


def tool_cost(episode: Episode, sample: Sample, settings: RewardSettings) -> float:
    """The cost column of the table above; 0 for ERROR. Raises DataError for a sample without a label."""
    if sample.label is None:
        raise DataError(
            f"sample {sample.sample_id} has no label, so a missed call cannot be told; run curate first"
        )
    if episode.stop is StopReason.ERROR:
        return 0.0
    refused = (
        settings.malformed_cost
        if episode.stop in (StopReason.MALFORMED, StopReason.TURN_LIMIT)
        else 0.0
    )
    if episode.crops:
        return settings.alpha_use + settings.lambda_area * area_fraction(episode.crops) + refused
    if refused:
        return refused
    return settings.alpha_miss if sample.label is Label.HR else 0.0
