"""The figures of one policy on one set of questions, and the table that sets policies side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from awares.episode import Episode, StopReason
from awares.evaluation.bootstrap import interval
from awares.evaluation.decisions import Decisions, decisions
from awares.sample import Sample


@dataclass(frozen=True, slots=True)
class Summary:
    """`accuracy` is the mean score with its bootstrap 95 % interval; ratios and tokens are means over episodes; latencies in seconds
    are None where none were measured. Episodes that stopped by ERROR (`errors` of `n`) score 0 and count in no ratio.

    Example:
        summarise(episodes, samples, scores, latencies, seed=0).accuracy
    """

    n: int
    errors: int
    accuracy: float
    accuracy_ci95: tuple[float, float]
    rtr_token: float
    rtr_pixel: float
    visual_tokens: float
    latency_p50_s: float | None
    latency_p95_s: float | None
    decisions: Decisions


def summarise(
    episodes: Sequence[Episode],
    samples: Sequence[Sample],
    scores: Sequence[float],
    latencies: Sequence[float] = (),
    *,
    seed: int = 0,
) -> Summary:
    """The summary of aligned, non-empty episodes, samples and scores in [0, 1]; `latencies` are seconds per episode, or empty."""
    assert len(episodes) == len(samples) == len(scores) > 0, (
        "episodes, samples and scores are aligned and not empty"
    )
    played = [episode for episode in episodes if episode.stop is not StopReason.ERROR]
    counted = [
        0.0 if episode.stop is StopReason.ERROR else score
        for episode, score in zip(episodes, scores, strict=True)
    ]
    p50, p95 = (
        (float(value) for value in np.quantile(latencies, [0.5, 0.95]))
        if latencies
        else (None, None)
    )
    return Summary(
        n=len(episodes),
        errors=len(episodes) - len(played),
        accuracy=sum(counted) / len(counted),
        accuracy_ci95=interval(counted, seed=seed),
        rtr_token=_mean([episode.rtr_token for episode in played]),
        rtr_pixel=_mean([episode.rtr_pixel for episode in played]),
        visual_tokens=_mean([episode.visual_tokens for episode in played]),
        latency_p50_s=p50,
        latency_p95_s=p95,
        decisions=decisions(zip(episodes, samples, strict=True)),
    )


def table(summaries: Mapping[str, Mapping[str, Summary]]) -> str:
    """A Markdown table in the paper's form: policies as rows, benchmarks as columns of accuracy in % with its interval, and rtr_token.

    `summaries` is policy to benchmark to summary; every policy has the same benchmarks. An average closes each row where there are
    several benchmarks.
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
            cells.append(
                f"{100 * _mean([s.accuracy for s in row.values()]):.2f} ({_mean([s.rtr_token for s in row.values()]):.2f})"
            )
        lines.append(f"| {policy} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(summary: Summary) -> str:
    low, high = summary.accuracy_ci95
    return f"{100 * summary.accuracy:.2f} [{100 * low:.1f}, {100 * high:.1f}] ({summary.rtr_token:.2f})"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
