"""Writes the results of the fault matrix as a Markdown document."""

import json
import re
from collections.abc import Sequence
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

_HEAD = """# The fault matrix

`python -m tests.faults.matrix` runs the grpo job on the mini setup, on a Ray cluster of two nodes
and with SeaweedFS behind a proxy. Faults strike at seeded random moments, one after the other.
The rollout actor and the learner share the node that the faults take away. `run.hang_timeout_s` is
30 and `store.retry_budget_s` is 120. The table has every fault that struck.
"Gone" is the time from the strike to the end of the process. "Next step" is the time from the
strike, or from the end of an outage, to the second new version. The limits are 120 s after a kill
or an outage, and 180 s after a stop.

| run | version | fault | gone, s | next step, s | within | what the job said |
|---|---|---|---|---|---|---|
"""
_STAMP = re.compile(r"grpo \[ *\d+ s\]: ")
_SIGMAS, _LAST = 3.0, 30


def table(results: Path) -> str:
    """Return the document about all parts whose results lie in the directory `results`."""
    parts = {
        int(path.stem.removeprefix("part-")): json.loads(path.read_text())
        for path in sorted(results.glob("part-*.json"))
    }
    rows = [_row(part, one) for part, found in parts.items() for one in found["struck"]]
    checks = [_checks(part, found, parts.get(0)) for part, found in parts.items() if part]
    return _HEAD + "\n".join(rows) + "\n\n## Checks of the runs\n\n" + "".join(checks)


def _row(part: int, struck: dict[str, Any]) -> str:
    gone = "" if struck["gone_s"] is None else f"{struck['gone_s']:.0f}"
    within = f"no: {struck['failed']}" if struck["failed"] else f"{struck['limit_s']:.0f}, yes"
    said = _said(struck["said"])
    cells = (part, struck["version"], struck["name"], gone, f"{struck['step_s']:.0f}", within, said)
    return "| " + " | ".join(map(str, cells)) + " |"


def _said(lines: Sequence[str]) -> str:
    """Return the first line of the job that is no line about a step, without its time."""
    ours = [line for line in lines if _STAMP.match(line) and " steps" not in line]
    told = [_STAMP.sub("", line) for line in ours]
    return told[0].replace("|", "/") if told else ""


def _checks(part: int, found: dict[str, Any], undisturbed: dict[str, Any] | None) -> str:
    """Return a line about a run. `undisturbed` is the run without faults, if there is one."""
    failed = [f"{name}: {fault}" for name, fault in found["checks"].items() if fault]
    passed = "; ".join(failed) or "no prompt is lost or trained twice, and no message is wrong"
    compared = f" {_compared(found, undisturbed)}" if undisturbed else ""
    return f"- Run {part}, {len(found['rewards'])} steps: {passed}.{compared}\n"


def _compared(found: dict[str, Any], undisturbed: dict[str, Any]) -> str:
    """Return a sentence that compares the last rewards with those of the same steps elsewhere."""
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
