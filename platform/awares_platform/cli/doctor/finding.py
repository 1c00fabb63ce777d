"""Defines the finding of a check, and selects the worst finding of several nodes."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

Status = Literal["pass", "skip", "warn", "fail"]
SEVERITY: tuple[Status, ...] = ("skip", "pass", "warn", "fail")
"""The statuses, from the mildest to the most severe."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Example:
        Finding("clock", "warn", "7 s behind the store", "Synchronise the clock with NTP.", 0.1)
    """

    check: str
    """Name of the check."""
    status: Status
    found: str
    """What the check has seen."""
    remedy: str = ""
    """One sentence, or "" if nothing has to be done."""
    seconds: float = 0.0
    """Duration of the check."""
    metrics: dict[str, Any] = field(default_factory=dict)
    """Measured values, by name."""


def worst(findings: Sequence[Finding]) -> list[Finding]:
    """Return the most severe finding of each check, with the metrics of all nodes.

    Findings of one check come from different nodes, which the metric "node" names. The checks keep
    their order.
    """
    grouped: dict[str, list[Finding]] = {}
    for finding in findings:
        grouped.setdefault(finding.check, []).append(finding)
    return [_joint(group) for group in grouped.values()]


def _joint(group: list[Finding]) -> Finding:
    if len(group) == 1:
        return group[0]
    chosen = max(group, key=lambda finding: SEVERITY.index(finding.status))
    node = chosen.metrics.get("node")
    where = f"{node}: " if node and chosen.status in ("warn", "fail") else ""
    return replace(
        chosen,
        found=f"{where}{chosen.found}",
        seconds=max(finding.seconds for finding in group),
        metrics={"nodes": [finding.metrics for finding in group]},
    )
