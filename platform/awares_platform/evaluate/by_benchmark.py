"""Computes the metrics of each benchmark, as in table 1 of the paper."""

from collections.abc import Mapping, Sequence
from typing import Any

from awares.evaluation.benchmarks import BENCHMARKS
from awares.evaluation.bootstrap import interval
from awares.evaluation.scorers import Version, yes_no_f1
from awares_platform.evaluate.scored import Scored, played

_OCRBENCH_ROWS = 1000


def benchmark_metrics(
    scored: Mapping[str, Sequence[Scored]], names: Sequence[str], seed: int, version: Version
) -> dict[str, Any]:
    """Return the metrics of each policy on each benchmark, and the averages over all benchmarks.

    A failed episode scores 0. It counts neither for the retained token ratio nor for `call_rate`,
    the share of episodes with crops.
    """
    found = {
        name: {policy: _metrics(name, rows, seed, version) for policy, rows in scored.items()}
        for name in names
    }
    keys = ("accuracy", "rtr_token", "rtr_pixel")
    return found | {
        "average": {
            policy: {key: _mean([found[name][policy][key] for name in names]) for key in keys}
            for policy in scored
        }
    }


def _metrics(name: str, scored: Sequence[Scored], seed: int, version: Version) -> dict[str, Any]:
    rows = [one for one in scored if one.sample.sample_id.startswith(f"{name}/")]
    if not rows:
        return {"n": 0, "accuracy": 0.0, "rtr_token": 0.0, "rtr_pixel": 0.0}
    scores, images = [one.score for one in rows], [one.sample.image for one in rows]
    episodes = played(rows)
    kinds = dict.fromkeys(one.sample.kind for one in rows if one.sample.kind)
    found = {
        "n": len(rows),
        "published_n": BENCHMARKS[name].rows,
        "accuracy": _mean(scores),
        "accuracy_ci95": list(interval(scores, images, seed=seed)),
        "errors": len(rows) - len(episodes),
        "rtr_token": _mean([one.rtr_token for one in episodes]),
        "rtr_pixel": _mean([one.rtr_pixel for one in episodes]),
        "call_rate": _mean([bool(one.crops) for one in episodes]),
        "accuracy_by_version": {
            known: _mean([one.by_version[known] for one in rows]) for known in rows[0].by_version
        },
        "splits": {
            kind: _split(name, [one for one in rows if one.sample.kind == kind], version)
            for kind in kinds
        },
    }
    if name == "ocrbench":
        found["total"] = sum(scores)
        found["total_of"] = min(len(rows), _OCRBENCH_ROWS)
    return found | ({"f1": _f1(rows, version)} if name == "pope" else {})


def _split(name: str, rows: Sequence[Scored], version: Version) -> dict[str, float]:
    found = {"n": len(rows), "accuracy": _mean([one.score for one in rows])}
    return found | ({"f1": _f1(rows, version)} if name == "pope" else {})


def _f1(rows: Sequence[Scored], version: Version) -> float:
    said = [one.episode.answer or "" for one in rows]
    return yes_no_f1(said, [one.sample.answer for one in rows], version)


def benchmarks_table(results: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """Return a Markdown table like the paper's table 1. A cell is "accuracy in % (rtr_token)".

    There is one row per policy. `names` maps each policy to its name in the table. Return "" if
    there are no benchmarks.
    """
    found = results.get("benchmarks")
    if not found:
        return ""
    head = ["policy", *found]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for policy in found["average"]:
        cells = (
            f"{100 * row['accuracy']:.2f} ({row['rtr_token']:.2f})" for row in _row(found, policy)
        )
        lines.append(f"| {names[policy]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _row(found: Mapping[str, Any], policy: str) -> list[Mapping[str, float]]:
    return [rows[policy] for rows in found.values()]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
