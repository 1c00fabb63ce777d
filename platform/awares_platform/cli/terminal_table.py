"""Fits a Markdown table to the terminal. The least important columns are left out first."""

import shutil
import sys

LEFT_OUT = ("p95", "RTR (pixels)", "reward", "95 % interval", "latency p50", "call rate")
"""The columns that may be left out, least important first. The run's files have all columns."""


def for_terminal(text: str) -> str:
    """Fit the table in `text` to the terminal. If stdout is no terminal, return the whole text."""
    return fit(text, shutil.get_terminal_size().columns) if sys.stdout.isatty() else text


def fit(text: str, width: int) -> str:
    """Leave out columns of LEFT_OUT while the table in `text` is wider than `width` characters.

    Example:
        fit("| policy | p95   |\\n| ------ | ----: |\\n| AwaRes | 42 ms |", 12)
        # "| policy |\\n| ------ |\\n| AwaRes |"
    """
    lines = text.split("\n")
    places = [place for place, line in enumerate(lines) if line.startswith("| ")]
    columns = list(zip(*(lines[place].strip("|").split("|") for place in places), strict=True))
    for name in LEFT_OUT:
        if _width(columns) > width:
            columns = [column for column in columns if column[0].strip() != name]
    for place, row in zip(places, zip(*columns, strict=True), strict=True):
        lines[place] = f"|{'|'.join(row)}|"
    return "\n".join(lines)


def _width(columns: list[tuple[str, ...]]) -> int:
    return 1 + sum(len(column[0]) + 1 for column in columns)
