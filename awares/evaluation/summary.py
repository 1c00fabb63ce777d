"""The figures of one policy on one set of questions, and a table that compares policies."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from awares.environment import Environment
from awares.episode import Episode, StopReason
from awares.evaluation.bootstrap import interval
from awares.evaluation.decisions import Decisions, decisions
from awares.sample import Sample
from awares.ten_crops import TEN_CROPS


@dataclass(frozen=True, slots=True)
class Summary:
    """The figures of one policy.

    Example:
        summarise(episodes, samples, scores, latencies, seed=0).accuracy
    """

    n: int
    """The number of episodes."""
    errors: int
    """The number of episodes with StopReason.ERROR."""
    accuracy: float
    """The mean score. An episode with ERROR scores 0."""
    accuracy_ci95: tuple[float, float]
    """The 95 % interval of `accuracy`. The bootstrap resamples images with all their questions."""
    rtr_token: float
    """The mean `Episode.rtr_token` of the episodes without ERROR."""
    rtr_pixel: float
    """The mean `Episode.rtr_pixel` of the episodes without ERROR."""
    visual_tokens: float
    """The mean number of visual tokens of the episodes without ERROR."""
    latency_p50_s: float | None
    """The median latency in seconds, or None without measured latencies."""
    latency_p95_s: float | None
    """The 95th percentile of the latency in seconds, or None without measured latencies."""
    decisions: Decisions
    """When and where the policy requested crops."""


def summarise(
    episodes: Sequence[Episode],
    samples: Sequence[Sample],
    scores: Sequence[float],
    latencies: Sequence[float] = (),
    *,
    environment: Environment = TEN_CROPS,
    seed: int = 0,
) -> Summary:
    """Return the figures of the policy that ran `episodes`.

    `episodes`, `samples` and `scores` are aligned and not empty, and scores are in [0, 1].
    `latencies` holds the latency of each measured episode in seconds.
    """
    aligned = len(episodes) == len(samples) == len(scores) > 0
    assert aligned, "episodes, samples and scores are aligned and not empty"
    played = [episode for episode in episodes if episode.stop is not StopReason.ERROR]
    counted = [
        0.0 if episode.stop is StopReason.ERROR else score
        for episode, score in zip(episodes, scores, strict=True)
    ]
    p50 = float(np.quantile(latencies, 0.5)) if latencies else None
    p95 = float(np.quantile(latencies, 0.95)) if latencies else None
    return Summary(
        n=len(episodes),
        errors=len(episodes) - len(played),
        accuracy=sum(counted) / len(counted),
        accuracy_ci95=interval(counted, [sample.image for sample in samples], seed=seed),
        rtr_token=_mean([episode.rtr_token for episode in played]),
        rtr_pixel=_mean([episode.rtr_pixel for episode in played]),
        visual_tokens=_mean([episode.visual_tokens for episode in played]),
        latency_p50_s=p50,
        latency_p95_s=p95,
        decisions=decisions(zip(episodes, samples, strict=True), environment),
    )


def table(summaries: Mapping[str, Mapping[str, Summary]]) -> str:
    """Return a Markdown table in the form of the paper's table 1.

    Rows are policies, and columns are benchmarks and their average. A cell holds the accuracy in %,
    its 95 % interval, and rtr_token.
    """
    benchmarks = list(next(iter(summaries.values())))
    heads = [*benchmarks, "average"] if len(benchmarks) > 1 else benchmarks
    lines = [
        "| policy | " + " | ".join(f"{head} acc (RTR)" for head in heads) + " |",
        "|---" * (len(heads) + 1) + "|",
    ]
    for policy, row in summaries.items():
        cells = [_cell(row[benchmark]) for benchmark in benchmarks]
        if len(benchmarks) > 1:
            accuracy = _mean([summary.accuracy for summary in row.values()])
            ratio = _mean([summary.rtr_token for summary in row.values()])
            cells.append(f"{100 * accuracy:.2f} ({ratio:.2f})")
        lines.append(f"| {policy} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(summary: Summary) -> str:
    low, high = (f"{100 * bound:.1f}" for bound in summary.accuracy_ci95)
    return f"{100 * summary.accuracy:.2f} [{low}, {high}] ({summary.rtr_token:.2f})"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
