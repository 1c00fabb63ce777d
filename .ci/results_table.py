"""Publishes the results of quickstarts with different seeds.

    .venv/bin/python .ci/results_table.py runs/quickstart-*/results.json

The script fills the README's table from all runs and draws its picture from the first run. It
copies the results to tests/unit/docs/quickstarts for a test.
"""

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from marked import fill

from awares_platform.evaluate.results import NAMES, claims
from awares_platform.report.tradeoff import tradeoff

ROOT = Path(__file__).parents[1]
NAMESPACE = "http://www.w3.org/2000/svg"
USED = r":root|@media \(prefers|svg( text(\.name)?)? \{|\.(policy-|grid|whisker|leader|mark)"
"""Matches the beginning of each CSS rule that the picture takes from the report's style sheet."""

PROCESSOR = "two cores of a processor with AVX2 and without bfloat16 instructions"
"""The processor of the published runs. The table's caption names it beside the run time."""

COLUMNS: dict[str, tuple[str, Callable[[float], str]]] = {
    "accuracy": ("accuracy", lambda value: f"{100 * value:.1f}"),
    "rtr_token": ("RTR, tokens", lambda value: f"{value:.3f}"),
    "rtr_pixel": ("RTR, pixels", lambda value: f"{value:.3f}"),
    "call_rate": ("calls, %", lambda value: f"{100 * value:.1f}"),
    "reward": ("reward", lambda value: f"{value:.2f}"),
    "latency_p50_s": ("latency p50, ms", lambda value: f"{1000 * value:.0f}"),
}


def published(runs: Sequence[Mapping[str, Any]]) -> str:
    """Return the table, its caption, and sentences that compare the policies' means, as Markdown.

    Each run is a parsed results.json. A cell holds the mean over the runs. If the runs' rounded
    figures differ, the cell also holds their range.
    """
    policies = [name for name in NAMES if all(name in run["policies"] for run in runs)]
    lines = [
        "| policy | " + " | ".join(head for head, _ in COLUMNS.values()) + " |",
        "|---" * (len(COLUMNS) + 1) + "|",
    ]
    for policy in policies:
        cells = [
            _cell([run["policies"][policy][key] for run in runs], text)
            for key, (_, text) in COLUMNS.items()
        ]
        lines.append(f"| {NAMES[policy]} | " + " | ".join(cells) + " |")
    means = {
        policy: {key: _mean(runs, policy, key) for key in ("accuracy", "rtr_token")}
        for policy in policies
    }
    passages = ["\n".join(lines), _caption(runs), claims(means)]
    return "\n\n".join(passage for passage in passages if passage)


def _mean(runs: Sequence[Mapping[str, Any]], policy: str, key: str) -> float:
    return sum(run["policies"][policy][key] for run in runs) / len(runs)


def _cell(values: Sequence[float | None], text: Callable[[float], str]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return ""
    low, high = text(min(known)), text(max(known))
    mean = text(sum(known) / len(known))
    return mean if low == high else f"{mean} ({low} to {high})"


def _caption(runs: Sequence[Mapping[str, Any]]) -> str:
    questions = min(row["n"] for run in runs for row in run["policies"].values())
    seeds = ", ".join(str(run["seed"]) for run in runs)
    what = f"Mean and range over seeds {seeds}" if len(runs) > 1 else f"Seed {seeds}"
    longest = max(sum(run["wall_s"].values()) for run in runs) / 60
    asked = f"{what}; {questions:,} held-out questions, greedy."
    return f"{asked} A run took at most {longest:.0f} minutes on {PROCESSOR}."


def picture(policies: Mapping[str, Any]) -> str:
    """Return the report's figure of accuracy over visual tokens, as the text of an SVG file."""
    css = files("awares_platform.report").joinpath("style.css").read_text("utf-8")
    # A CSS rule begins at a line without indentation.
    rules = re.split(r"\n+(?=[^\s}])", css.partition("@media (max")[0])
    used = [rule.rstrip() for rule in rules if re.match(USED, rule)]
    style = f"<style>\n{chr(10).join(used)}\n</style>"
    drawn = tradeoff(dict(policies)).replace("<svg ", f'<svg xmlns="{NAMESPACE}" ', 1)
    return drawn.replace(">", f">{style}", 1) + "\n"


def main(paths: Sequence[Path]) -> None:
    """Fill the README's table, draw the picture, and copy the files at `paths` to the tests."""
    runs = [json.loads(path.read_text("utf-8")) for path in paths]
    fill(ROOT / "README.md", "results", published(runs))
    (ROOT / "platform/docs/results.svg").write_text(picture(runs[0]["policies"]), "utf-8")
    for run in runs:
        target = ROOT / f"tests/unit/docs/quickstarts/seed-{run['seed']}.json"
        target.write_text(json.dumps(run, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
