"""Measures how many predictions each of our scorers scores per second on one core.

    PYTHONPATH=.:platform .venv/bin/python tests/benchmarks/scorers.py

The rates of lmms-eval's scorers include other work, because they cannot be called alone.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec

from awares.evaluation.scorers import scorer
from tests.benchmarks.command import Screen, parser, save
from tests.lmms_eval.cases import NAMES, ScoredPair, pairs

VERSION = "2026-08"


@dataclass(frozen=True, slots=True)
class ScoredRate:
    """The number of predictions that two scorers take per second.

    Example:
        ScoredRate("docvqa", ours=52_000.0, theirs=4_100.0)
    """

    name: str
    ours: float
    theirs: float | None
    """The rate of the same scorer in lmms-eval, or None if lmms-eval is not installed."""


def rate(score: Callable[[Sequence[ScoredPair]], object], chosen: Sequence[ScoredPair]) -> float:
    """Return the number of predictions a second in the fastest of three passes."""
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        score(chosen)
        seconds.append(time.perf_counter() - started)
    return len(chosen) / min(seconds)


def ours(chosen: Sequence[ScoredPair]) -> list[float]:
    """Return the score of each pair by our scorers."""
    found = {name: scorer(name, VERSION) for name in NAMES}
    return [found[one.name](one.prediction, one.answers, one.question) for one in chosen]


def measure(chosen: Sequence[ScoredPair], name: str) -> ScoredRate:
    """Return how fast the scorer `name` is. The name "all" means all scorers together."""
    mine = [one for one in chosen if name in (one.name, "all")]
    theirs = None
    if find_spec("lmms_eval"):
        from tests.lmms_eval.published import scores

        theirs = rate(scores, mine)
    return ScoredRate(name, rate(ours, mine), theirs)


def table(rows: Sequence[ScoredRate]) -> str:
    """Return a Markdown table of the rates."""
    lines = ["| scorer | pairs a second | lmms-eval 0.7.3 |", "|---|---|---|"]
    for row in rows:
        theirs = "" if row.theirs is None else f"{row.theirs:,.0f}"
        lines.append(f"| {row.name} | {row.ours:,.0f} | {theirs} |")
    return "\n".join(lines)


def main() -> None:
    given = parser(__doc__, "fewer pairs", "scorers").parse_args()
    chosen, rows = list(pairs(0, 7_000 if given.quick else 70_000)), []
    with Screen() as screen:
        for name in (*NAMES, "all"):
            screen.tell(name)
            rows.append(measure(chosen, name))
            screen.show(f"{name}: {rows[-1].ours:,.0f} pairs a second")
    save(given, "scorers", table(rows), [asdict(row) for row in rows])


if __name__ == "__main__":
    main()
