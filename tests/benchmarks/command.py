"""Provides what most benchmarks share: command-line options, progress output, and saved figures."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from rich.progress import Progress, TextColumn, TimeElapsedColumn


def parser(description: str | None, quick: str, passage: str) -> argparse.ArgumentParser:
    """Return a parser of the options that most benchmarks share.

    `quick` is the help text of --quick. `passage` names the marks in a document between which
    --readme writes the figures.
    """
    raw = argparse.RawDescriptionHelpFormatter
    marks = f"document whose passage between the {passage} marks is replaced by the figures"
    options = argparse.ArgumentParser(description=description, formatter_class=raw)
    options.add_argument("--quick", action="store_true", help=quick)
    options.add_argument("--json", type=Path, help="file for the figures")
    options.add_argument("--readme", type=Path, help=marks)
    return options


class Screen:
    """Shows a line with the current work and its duration, and prints figures above this line.

    Example:
        with Screen() as screen:
            screen.tell("3.3 % changed")
            screen.show("3.3 % changed: 0.09 s")
    """

    def __init__(self) -> None:
        columns = TextColumn("{task.description}"), TimeElapsedColumn()
        self._progress = Progress(*columns, transient=True)
        self._task = self._progress.add_task("")

    def __enter__(self) -> "Screen":
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def tell(self, work: str) -> None:
        """Show `work`, the name of the work that begins now."""
        self._progress.update(self._task, description=work)

    def show(self, figures: str) -> None:
        """Print figures, which stay on the screen."""
        self._progress.console.print(figures, highlight=False, soft_wrap=True)


def save(given: argparse.Namespace, passage: str, text: str, figures: Any) -> None:
    """Write `figures` to the file of --json, and `text` into the document of --readme.

    Without these options, write nothing.
    """
    if given.json:
        given.json.write_text(json.dumps(figures, indent=1))
    if given.readme:
        sys.path.append(str(Path(__file__).parents[2] / ".ci"))
        from marked import fill

        fill(given.readme, passage, text)
