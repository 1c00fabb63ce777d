"""Formats the results as HTML tables: accuracy and cost, by kind, by label, and requests.

The argument `policies` of each function is the value of "policies" in results.json.
"""

from collections.abc import Sequence
from html import escape
from typing import Any

from awares_platform.evaluate.results import NAMES

DECISIONS = {
    "call_precision": "call precision",
    "call_recall": "call recall",
    "call_f1": "call F1",
    "call_fpr": "false calls",
    "region_exact": "region exact",
    "region_iou25": "region IoU ≥ 0.25",
    "mean_area": "mean area",
    "valid_rate": "valid requests",
}

LABELS = {"LR": "low resolution suffices (LR)", "HR": "needs detail (HR)"}


def results_table(policies: dict[str, dict[str, Any]]) -> str:
    """Return a table with a row per policy.

    The columns are the accuracy, its 95 % interval, the RTR in tokens, the RTR in pixels, the call
    rate, the reward and the latency.
    """
    head = (
        "policy",
        "accuracy ↑",
        "95 % interval",
        "RTR, tokens ↓",
        "RTR, pixels",
        "call rate",
        "reward",
        "latency p50 / p95",
    )
    rows = [
        (
            NAMES[name],
            f"{row['accuracy']:.1%}",
            f"{row['accuracy_ci95'][0]:.1%} – {row['accuracy_ci95'][1]:.1%}",
            f"{row['rtr_token']:.3f}",
            f"{row['rtr_pixel']:.3f}",
            f"{row['call_rate']:.1%}",
            "" if row.get("reward") is None else f"{row['reward']:.2f}",
            f"{_seconds(row.get('latency_p50_s'))} / {_seconds(row.get('latency_p95_s'))}",
        )
        for name, row in policies.items()
    ]
    return _table(head, rows, list(policies))


def kinds_table(policies: dict[str, dict[str, Any]]) -> str:
    """Return a table with the accuracy and the RTR of each policy on each kind of question.

    The table has the form of the paper's table 1, transposed, with kinds of question instead of
    benchmarks.
    """
    kinds = sorted({kind for row in policies.values() for kind in row["by_kind"]})
    rows = [
        (kind, *(_accuracy_rtr(row["by_kind"].get(kind)) for row in policies.values()))
        for kind in kinds
    ]
    rows.append(("all", *(_accuracy_rtr(row) for row in policies.values())))
    columns = "".join(
        f'<th scope="col" class="policy-{name}"><i></i>{escape(NAMES[name])}</th>'
        for name in policies
    )
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>{_cells(row[1:])}</tr>' for row in rows
    )
    return _whole(f'<th scope="col">Acc ↑ (RTR ↓)</th>{columns}', body)


def labels_table(policies: dict[str, dict[str, Any]]) -> str:
    """Return a table with the accuracy and the RTR of each policy on the questions of each label.

    The label is LR if the low-resolution view suffices, and HR otherwise. Without labels, the table
    is "".
    """
    labels = {
        label: name
        for label, name in LABELS.items()
        if any(label in row["by_label"] for row in policies.values())
    }
    return _groups(policies, "by_label", labels) if labels else ""


def _groups(policies: dict[str, dict[str, Any]], key: str, names: dict[str, str]) -> str:
    rows = [
        (
            NAMES[policy],
            *(_accuracy_rtr(row[key].get(group)) for group in names),
            _accuracy_rtr(row),
        )
        for policy, row in policies.items()
    ]
    return _table(("Acc ↑ (RTR ↓)", *names.values(), "all"), rows, list(policies))


def decisions_table(policies: dict[str, dict[str, Any]]) -> str:
    """Return a table that compares each policy's requests with the labels and the evidence.

    The result is "" if results.json has no figures about requests.
    """
    judged = {name: row["decision"] for name, row in policies.items() if row.get("decision")}
    keys = [key for key in DECISIONS if any(key in row for row in judged.values())]
    if not keys:
        return ""
    rows = [
        (NAMES[name], *(_decimal(row.get(key)) for key in keys)) for name, row in judged.items()
    ]
    return _table(("policy", *(DECISIONS[key] for key in keys)), rows, list(judged))


def _accuracy_rtr(row: dict[str, Any] | None) -> str:
    if row is None:
        return "–"
    return f"{100 * row['accuracy']:.1f} <small>({row['rtr_token']:.2f})</small>"


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value * 1000:.0f} ms" if value < 1 else f"{value:.2f} s"


def _decimal(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]], names: list[str]) -> str:
    columns = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = "".join(
        f'<tr class="policy-{name}"><th scope="row"><i></i>{escape(row[0])}</th>'
        f"{_cells(row[1:])}</tr>"
        for name, row in zip(names, rows, strict=True)
    )
    return _whole(columns, body)


def _cells(row: Sequence[str]) -> str:
    return "".join(f"<td>{cell}</td>" for cell in row)


def _whole(columns: str, body: str) -> str:
    head = f"<thead><tr>{columns}</tr></thead>"
    return f'<div class="scroll"><table>{head}<tbody>{body}</tbody></table></div>'
