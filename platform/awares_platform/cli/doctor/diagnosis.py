"""Presents the findings of one run of `awares doctor`: as a table, as JSON and as one status."""

import json
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from awares_platform.cli.doctor.finding import SEVERITY, Finding, Status
from awares_platform.runtime.run import versions

FORMAT = 1
_WIDEST = 60
"""The table cuts a finding to this number of characters. The list below the table is not cut."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The findings of one run of `awares doctor`, in the order of the checks.

    `run` is the value of `run.name`. `seconds` is the duration of all checks.

    Example:
        Diagnosis("mini", (Finding("clock", "pass", "agrees with the store's clock"),), 31.0)
    """

    run: str
    findings: tuple[Finding, ...]
    seconds: float

    @property
    def status(self) -> Status:
        """The most severe status of all findings."""
        found = [SEVERITY.index(one.status) for one in self.findings]
        return SEVERITY[max(found, default=SEVERITY.index("pass"))]

    def table(self) -> str:
        """Return a Markdown table of the findings."""
        rows = [("check", "result", "time", "finding")]
        rows += [
            (one.check, one.status, f"{one.seconds:.1f} s", _short(one.found))
            for one in self.findings
        ]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [_row(row, widths) for row in rows]
        return "\n".join([lines[0], _row(["-" * width for width in widths], widths), *lines[1:]])

    def remedies(self) -> str:
        """Return the warnings and failures with their remedies, and the counts of all statuses."""
        faults = [one for one in self.findings if one.status in ("warn", "fail")]
        lines = [f"{one.status}: {one.check}: {one.found}\n  {one.remedy}" for one in faults]
        total = f"{len(self.findings)} checks in {self.seconds:.0f} s: "
        counts = {status: self._count(status) for status in reversed(SEVERITY)}
        summary = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
        return "\n".join([*lines, f"{total}{summary}"])

    def as_json(self) -> str:
        """Return the findings with their metrics, and the versions of the packages, as JSON."""
        content = {
            "format": FORMAT,
            "run": self.run,
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "seconds": round(self.seconds, 1),
            "status": self.status,
            "findings": [asdict(one) for one in self.findings],
            "versions": versions(),
        }
        return json.dumps(content, indent=1) + "\n"

    def _count(self, status: Status) -> int:
        return sum(one.status == status for one in self.findings)


def write(text: str, path: Path) -> None:
    """Write a file atomically. Raises OSError if the file cannot be written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, staged = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(staged, 0o644)
    os.replace(staged, path)


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
    return f"| {' | '.join(padded)} |"


def _short(found: str) -> str:
    plain = found.replace("|", "/")
    return plain if len(plain) <= _WIDEST else f"{plain[: _WIDEST - 4]} ..."
