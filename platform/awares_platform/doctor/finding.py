"""The finding of one check, and the worst of several findings."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

Status = Literal["pass", "skip", "warn", "fail"]
SEVERITY: tuple[Status, ...] = ("skip", "pass", "warn", "fail")
"""The statuses, from the mildest to the most severe."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    `found` states what the check has seen. `remedy` is one sentence, and is empty if nothing has to
    be done. `seconds` is the time of the check. `figures` holds the measured values by name.

    Example:
        Finding("clock", "warn", "7 s behind the store", "Synchronise the clock with NTP.", 0.1)
    """

    check: str
    status: Status
    found: str
    remedy: str = ""
    seconds: float = 0.0
    figures: dict[str, Any] = field(default_factory=dict)


def worst(findings: Sequence[Finding]) -> list[Finding]:
    """Return one finding per check: the most severe one of all nodes, with all nodes' figures.

    Several findings of one check come from several nodes. Their figures must then hold the key
    "node". The order of the checks is kept.
    """
    grouped: dict[str, list[Finding]] = {}
    for finding in findings:
        grouped.setdefault(finding.check, []).append(finding)
    return [_joint(group) for group in grouped.values()]


def _joint(group: list[Finding]) -> Finding:
    if len(group) == 1:
        return group[0]
    chosen = max(group, key=lambda finding: SEVERITY.index(finding.status))
    node = chosen.figures.get("node")
    where = f"{node}: " if node and chosen.status in ("warn", "fail") else ""
    return replace(
        chosen,
        found=f"{where}{chosen.found}",
        seconds=max(finding.seconds for finding in group),
        figures={"nodes": [finding.figures for finding in group]},
    )
