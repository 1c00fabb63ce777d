"""Turns scored episodes into metrics, and metrics into a Markdown table.

`assemble` returns the content of results.json. Its key "policies" maps each policy to its
`policy_metrics`.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from awares.environment import Environment, count_regions
from awares.episode import Episode, StopReason
from awares.evaluation.bootstrap import difference
from awares.evaluation.decisions import Decisions, decisions
from awares.evaluation.summary import summarise
from awares.sample import Sample
from awares.ten_crops import TEN_CROPS
from awares_platform.evaluate.by_benchmark import benchmarks_table
from awares_platform.evaluate.scored import Scored, played

NAMES = {
    "full": "full resolution",
    "low": "low resolution",
    "threshold": "confidence threshold",
    "escalate": "escalate to the whole image",
    "sft": "AwaRes, SFT only",
    "awares": "AwaRes",
}


def policy_metrics(
    scored: Sequence[Scored], may_call: bool, seed: int, asked: Environment = TEN_CROPS
) -> dict[str, Any]:
    """Return the metrics of one policy: overall, by question kind and by annotated label.

    - `crops` counts the requests for each region of `asked`, and the direct answers.
    - `unanswered` counts the successful episodes with neither request nor answer.
    - `decision` compares the decisions to request crops with the labels of this evaluation.
    - `decision_annotated` compares these decisions with the annotated labels.

    The last two need a policy that may request crops (`may_call`).
    """
    episodes = [one.episode for one in scored]
    latencies = [one.latency_s for one in scored if one.latency_s is not None]
    summary = summarise(
        episodes,
        [one.labelled for one in scored],
        [one.score for one in scored],
        latencies,
        environment=asked,
        seed=seed,
    )
    earned = [one.reward for one in scored if one.reward is not None]
    histogram = dict(summary.decisions.histogram)
    unanswered = sum(map(_unanswered, episodes))
    row: dict[str, Any] = {
        "n": summary.n,
        "errors": summary.errors,
        "accuracy": summary.accuracy,
        "accuracy_ci95": list(summary.accuracy_ci95),
        "accuracy_by_version": _by_version(scored),
        "reward": sum(earned) / len(earned) if earned else None,
        "rtr_token": summary.rtr_token,
        "rtr_pixel": summary.rtr_pixel,
        "visual_tokens": summary.visual_tokens,
        "call_rate": summary.decisions.call_rate or 0.0,
        "latency_p50_s": summary.latency_p50_s,
        "latency_p95_s": summary.latency_p95_s,
        "unanswered": unanswered,
        "crops": {"direct": histogram.pop("none") - unanswered} | histogram,
        "by_kind": _groups(scored, lambda one: one.sample.kind),
        "by_label": _groups(scored, lambda one: one.sample.label and one.sample.label.value),
    }
    if may_call:
        row["decision"] = _decision(summary.decisions)
        row["decision_annotated"] = _decision(
            decisions(((one.episode, one.sample) for one in scored), asked)
        )
    return row


def _by_version(scored: Sequence[Scored]) -> dict[str, float]:
    """Return the accuracy according to each version of the scorers."""
    versions = scored[0].by_version
    return {name: sum(one.by_version[name] for one in scored) / len(scored) for name in versions}


def _unanswered(episode: Episode) -> bool:
    failed = episode.stop is StopReason.ERROR
    return not (failed or episode.crops) and episode.answer is None


def _groups(
    scored: Sequence[Scored], key: Callable[[Scored], str | None]
) -> dict[str, dict[str, float]]:
    groups: dict[str, list[Scored]] = {}
    for one in scored:
        groups.setdefault(key(one) or "", []).append(one)
    return {
        name: {
            "n": len(group),
            "accuracy": sum(one.score for one in group) / len(group),
            "rtr_token": _mean([one.rtr_token for one in played(group)]),
            "call_rate": _mean([bool(one.crops) for one in played(group)]),
        }
        for name, group in sorted(groups.items())
        if name
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _decision(found: Decisions) -> dict[str, float | None]:
    return {
        "call_precision": found.precision,
        "call_recall": found.recall,
        "call_f1": found.f1,
        "call_fpr": found.false_positive_rate,
        "region_exact": found.region_exact,
        "region_iou25": found.region_match,
        "mean_area": found.mean_area,
        "valid_rate": found.valid_parse_rate,
    }


def label_counts(samples: Sequence[Sample], asked: Environment = TEN_CROPS) -> dict[str, Any]:
    """Return the number of samples with each label, and the number with each target region."""
    labels = Counter("none" if sample.label is None else sample.label.value for sample in samples)
    crops = [crop for sample in samples for crop in sample.crops]
    counts = count_regions(crops, asked.regions)
    return {
        "counts": dict(labels),
        "crops": {crop: count for crop, count in counts.items() if count},
    }


def comparisons(scored: Mapping[str, Sequence[Scored]], seed: int) -> dict[str, dict[str, Any]]:
    """Return the difference in accuracy between "awares" and each other policy.

    The 95 % confidence interval comes from a paired bootstrap over the images.
    """
    if "awares" not in scored:
        return {}
    found, images = {}, [one.sample.image for one in scored["awares"]]
    for name in (name for name in scored if name != "awares"):
        pairs = [[one.score for one in scored[policy]] for policy in ("awares", name)]
        mean = sum(pairs[0]) / len(pairs[0]) - sum(pairs[1]) / len(pairs[1])
        found[f"awares-{name}"] = {
            "accuracy": mean,
            "accuracy_ci95": list(difference(pairs[0], pairs[1], images, seed=seed)),
        }
    return found


def table(results: Mapping[str, Any]) -> str:
    """Return a Markdown table with one row per policy, in the order of the paper."""
    head = (
        "policy",
        "accuracy",
        "95 % interval",
        "RTR (tokens)",
        "RTR (pixels)",
        "call rate",
        "reward",
        "latency p50",
        "p95",
    )
    rows = [head, ("---", *("---:" for _ in head[1:]))]
    rows += [_row(name, results["policies"][name]) for name in NAMES if name in results["policies"]]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    return "\n".join(_line(row, widths) for row in rows)


def _row(name: str, row: Mapping[str, Any]) -> tuple[str, ...]:
    low, high = row["accuracy_ci95"]
    return (
        NAMES[name],
        f"{row['accuracy']:.1%}",
        f"{low:.1%} to {high:.1%}",
        f"{row['rtr_token']:.3f}",
        f"{row['rtr_pixel']:.3f}",
        f"{row['call_rate']:.1%}",
        "" if row["reward"] is None else f"{row['reward']:.2f}",
        _milliseconds(row["latency_p50_s"]),
        _milliseconds(row["latency_p95_s"]),
    )


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    return (
        "| "
        + " | ".join(_fill(cell, width) for cell, width in zip(row, widths, strict=True))
        + " |"
    )


def _fill(cell: str, width: int) -> str:
    return "-" * (width - 1) + cell[-1] if cell.startswith("---") else cell.ljust(width)


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{1000 * seconds:.0f} ms"


def caption(results: Mapping[str, Any]) -> str:
    """Return the table's caption, which also says how the latency is measured."""
    latency = results["latency"]
    text = f"{results['questions']:,} held-out questions, greedy, seed {results['seed']}."
    if latency["questions"]:
        text += (
            f" Latency: {latency['questions']} questions one at a time with cold caches, "
            "from the decoded image to the last token."
        )
    return " ".join(filter(None, (text, unpaid(results.get("labels", {})))))


def unpaid(labels: Mapping[str, Any]) -> str:
    """Return how many questions have no label because curate.budget is spent, or "" for none.

    `labels` is the value of "labels" in results.json.
    """
    count = labels.get("unpaid", 0)
    if not count:
        return ""
    return (
        f"{count:,} questions have no label, because curate.budget is spent; "
        "rewards and decisions count only the others."
    )


def tables(results: Mapping[str, Any]) -> str:
    """Return the tables of the results, one below the other."""
    found = (benchmarks_table(results, NAMES), table(results), versions_table(results))
    return "\n\n".join(filter(None, found))


def versions_table(results: Mapping[str, Any]) -> str:
    """Return a Markdown table of the accuracies according to each version of the scorers.

    A policy has a row only if its accuracy differs between versions. Return "" if there is no row.
    """
    rows = {
        NAMES[name]: row["accuracy_by_version"]
        for name, row in results["policies"].items()
        if len(set(row.get("accuracy_by_version", {}).values())) > 1
    }
    if not rows:
        return ""
    head = "| accuracy by | " + " | ".join(next(iter(rows.values()))) + " |"
    lines = [
        f"| {name} | " + " | ".join(f"{value:.1%}" for value in row.values()) + " |"
        for name, row in rows.items()
    ]
    return "\n".join([head, "|---" * (1 + len(next(iter(rows.values())))) + "|", *lines])


def claims(policies: Mapping[str, Mapping[str, Any]]) -> str:
    """Return two sentences that compare "awares" with "escalate" and with "threshold".

    `policies` maps each policy to its metrics, which must contain accuracy and rtr_token. The
    result is "" unless all three policies are in `policies`.
    """
    if not {"awares", "escalate", "threshold"} <= policies.keys():
        return ""
    awares, escalate, threshold = (policies[name] for name in ("awares", "escalate", "threshold"))
    saved = 1 - awares["rtr_token"] / escalate["rtr_token"]
    beside = 100 * (awares["accuracy"] - escalate["accuracy"])
    gained = 100 * (awares["accuracy"] - threshold["accuracy"])
    return (
        f"AwaRes spends {saved:.0%} fewer visual tokens than escalation to the whole image; its "
        f"accuracy differs by {beside:+.1f} points. Its accuracy differs by {gained:+.1f} points "
        "from that of a confidence threshold at the same tokens."
    )
