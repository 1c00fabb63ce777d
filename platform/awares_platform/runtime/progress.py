"""Shows a job's progress as a bar on a terminal, and as plain lines elsewhere."""

import sys
import time
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Task, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.text import Text

QUIET_S = 5.0


class Progress:
    """A context manager that shows a job's progress, counted in `unit`.

    Without a terminal, `advance` prints at most one line every `quiet_s` seconds.

    Example:
        with Progress("grpo", total=40, unit="steps") as progress:
            for step in range(40):
                progress.advance(note=f"reward {reward:.2f}")
    """

    def __init__(
        self,
        job: str,
        total: int | None = None,
        unit: str = "",
        stream: TextIO | None = None,
        quiet_s: float = QUIET_S,
    ) -> None:
        self.job = job
        self.total = total
        self.unit = unit
        self.done = 0
        self._stream = stream or sys.stderr
        self._started = time.monotonic()
        self._quiet_s = quiet_s
        self._printed = -quiet_s
        self._bar = _bar(self._stream) if self._stream.isatty() else None
        self._task = self._bar.add_task(job, total=total, note="") if self._bar else None

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar:
            self._bar.stop()
        elif kind is None and self.done:
            self._print("done", force=True)

    def advance(self, count: int = 1, note: str = "") -> None:
        """Add `count` finished units, and show `note`, such as "reward 0.82", beside the count."""
        self.done += count
        if self._bar and self._task is not None:
            self._bar.update(self._task, completed=self.done, total=self.total, note=note)
        else:
            self._print(note)

    def say(self, text: str) -> None:
        """Print a line now, such as the start of a new phase."""
        if self._bar:
            self._bar.console.print(f"{self.job}: {text}", highlight=False, markup=False)
        else:
            self._write(text)

    def _print(self, note: str, *, force: bool = False) -> None:
        now = time.monotonic()
        if force or now - self._printed >= self._quiet_s:
            self._printed = now
            amount = f"{self.done}/{self.total}" if self.total else str(self.done)
            self._write(" ".join(part for part in (amount, self.unit, note) if part))

    def _write(self, text: str) -> None:
        seconds = time.monotonic() - self._started
        print(f"{self.job} [{seconds:5.0f} s]: {text}", file=self._stream, flush=True)


def _bar(stream: TextIO) -> Bar:
    name = TextColumn("{task.description:>10}")
    note = TextColumn("{task.fields[note]}", markup=False)
    columns = (name, BarColumn(), _Count(), TimeElapsedColumn(), note)
    return Bar(*columns, console=Console(file=stream))


class _Count(MofNCompleteColumn):
    """A column with the number of finished units and the number of all units.

    The column is empty while no unit is finished and the number of all units is 0 or unknown.
    """

    def render(self, task: Task) -> Text:
        return super().render(task) if task.total or task.completed else Text()
