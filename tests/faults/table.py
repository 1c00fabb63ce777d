"""Writes the results of the fault matrix as a Markdown document."""

import json
from collections.abc import Sequence
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev
from textwrap import fill, shorten
from typing import Any

from tests.faults.faults import MATRIX

_HEAD = """# The fault matrix

`python -m tests.faults.matrix` runs the grpo job on the mini setup, on a Ray cluster of two nodes
and with SeaweedFS behind a proxy. Faults strike at seeded random moments, one after the other. The
rollout actor and the learner share the node that the faults take away. `run.hang_timeout_s` is 30
and `store.retry_budget_s` is 120. A test makes this page from the files in `figures/`. Runs 5 to 8
repeat faults that missed a bar, after the cause was mended. Run 9 strikes with a fault that the
matrix got later. In run 2, the last kill probably hit a process that the stopped raylet had left
behind, and not the learner. In run 7, the 20 s of the notice counted from before the commands that
give it, which take seconds.

"Gone" is the time from the strike to the end of the process. "Next step" is the time from the
strike, or from the end of an outage, until the job has named the fault and then published two new
versions. The limits are 120 s after a kill or an outage, and 180 s after a stop.

| run | version | fault | gone, s | next step, s | within | what the job said |
|---|---|---|---|---|---|---|
"""
_LIMITS = """
## What this table does not show

- The job has one rollout actor, one learner rank and one reward worker, and no GPU.
- Each fault strikes a job that has recovered from the fault before it. No two strike at once.
- The node of the driver is never lost. Kubernetes starts a driver again on another node.
- A disk is full on the driver's node only.
- The other jobs are not struck here. `tests/integration` strikes them.
"""
FIGURES = Path(__file__).with_name("figures")
_SIGMAS, _LAST, _WIDTH, _SHOWN = 3.0, 30, 100, 120


def table(results: Path) -> str:
    """Return the document about all parts whose results lie in the directory `results`."""
    parts = {
        int(path.stem.removeprefix("part-")): json.loads(path.read_text())
        for path in sorted(results.glob("part-*.json"))
    }
    rows = [_row(part, one) for part, found in parts.items() for one in found["struck"]]
    checks = [_checks(part, found, parts.get(0)) for part, found in parts.items() if part]
    text = [_HEAD, *rows, "\n", _missing(parts), "## Checks of the runs\n\n", *checks, _LIMITS]
    return "".join(text)


def _missing(parts: dict[int, dict[str, Any]]) -> str:
    """Return a paragraph with the faults that have not struck, or ""."""
    struck = {one["name"] for found in parts.values() for one in found["struck"]}
    left = [fault.name for fault in MATRIX if fault.name not in struck]
    listed = fill(f"Not struck yet: {', '.join(left)}.", _WIDTH)
    return f"{listed}\n\n" if left else ""


def _row(part: int, struck: dict[str, Any]) -> str:
    gone = "" if struck["gone_s"] is None else f"{struck['gone_s']:.0f}"
    within = f"no: {struck['failed']}" if struck["failed"] else f"{struck['limit_s']:.0f}, yes"
    told = struck["told"].replace("|", "/") or "no line names it"
    cells = (part, struck["version"], struck["name"], gone, f"{struck['step_s']:.0f}", within, told)
    return "| " + " | ".join(map(str, cells)) + " |\n"


def _checks(part: int, found: dict[str, Any], undisturbed: dict[str, Any] | None) -> str:
    """Return a line about a run. `undisturbed` is the run without faults, if there is one."""
    failed = [
        f"{name}: {shorten(fault, _SHOWN)}" for name, fault in found["checks"].items() if fault
    ]
    passed = "; ".join(failed) or (
        "no prompt is lost or trained twice, no message is wrong, no line is foreign"
    )
    compared = f" {_compared(found, undisturbed)}" if undisturbed else ""
    line = f"- Run {part}, {len(found['rewards'])} steps: {passed}.{compared}"
    return fill(line, _WIDTH, subsequent_indent="  ") + "\n"


def _compared(found: dict[str, Any], undisturbed: dict[str, Any]) -> str:
    """Return a sentence that compares the two runs' mean rewards over their last common steps."""
    both = min(len(found["rewards"]), len(undisturbed["rewards"]))
    here, there = (one["rewards"][:both][-_LAST:] for one in (found, undisturbed))
    noise = _SIGMAS * sqrt(_squared_error(here) + _squared_error(there))
    gap = fmean(here) - fmean(there)
    return (
        f"The mean reward of steps {both - len(here) + 1} to {both} is {fmean(here):.3f}, and "
        f"{fmean(there):.3f} without faults: the difference of {gap:+.3f} is "
        f"{'within' if abs(gap) <= noise else 'outside'} {_SIGMAS:.0f} standard errors "
        f"({noise:.3f})."
    )


def _squared_error(values: Sequence[float]) -> float:
    return stdev(values) ** 2 / len(values)
