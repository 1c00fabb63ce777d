"""Compares a run with another run: their settings, and the results of their policies."""

from collections.abc import Mapping
from html import escape
from typing import Any

from awares_platform.evaluate.results import NAMES
from awares_platform.report.identity import differences
from awares_platform.report.records import RunRecord

_FIGURES = (
    ("accuracy", "accuracy", "{:.1%}", 100.0, "{:+.1f} points"),
    ("rtr_token", "RTR, tokens", "{:.3f}", 1.0, "{:+.3f}"),
    ("call_rate", "call rate", "{:.1%}", 100.0, "{:+.1f} points"),
    ("reward", "reward", "{:.2f}", 1.0, "{:+.2f}"),
)
"""The compared figures.

Each row holds the key, the title and the format of a figure. The last two values are the factor and
the format with which the difference between two figures is shown.
"""


def comparison(record: RunRecord, other: RunRecord) -> str:
    """Return two tables: the results of both runs, and the settings that differ.

    The first table has a row for each policy that both runs have evaluated. A cell shows the figure
    of `other`, the figure of `record`, and their difference.
    """
    return f"{_results(record, other)}{_settings(record, other)}"


def _results(record: RunRecord, other: RunRecord) -> str:
    shared = [name for name in record.policies if name in other.policies]
    if not shared:
        return "<p>The runs have no evaluated policy in common.</p>"
    head = "".join(f'<th scope="col">{title}</th>' for _, title, *_ in _FIGURES)
    rows = "".join(
        f'<tr class="policy-{name}"><th scope="row"><i></i>{escape(NAMES[name])}</th>'
        f"{_cells(other.policies[name], record.policies[name])}</tr>"
        for name in shared
    )
    return _table(f'<th scope="col">policy</th>{head}', rows)


def _cells(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    cells = []
    for key, _, shown, factor, change in _FIGURES:
        first, second = before.get(key), after.get(key)
        if first is None or second is None:
            cells.append("<td>–</td>")
            continue
        pair = f"{shown.format(first)} → {shown.format(second)}"
        cells.append(f"<td>{change.format(factor * (second - first))} <small>{pair}</small></td>")
    return "".join(cells)


def _settings(record: RunRecord, other: RunRecord) -> str:
    changed = differences(other.config, record.config)
    if not changed:
        return "<p>The two runs have the same settings, except their names.</p>"
    head = "".join(
        f'<th scope="col">{escape(name)}</th>' for name in ("setting", other.name, record.name)
    )
    rows = "".join(
        f'<tr><th scope="row">{escape(key)}</th><td>{escape(first)}</td>'
        f"<td>{escape(second)}</td></tr>"
        for key, (first, second) in changed.items()
    )
    return f"<h3>Settings that differ</h3>{_table(head, rows)}"


def _table(head: str, rows: str) -> str:
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return f'<div class="scroll">{table}</div>'
