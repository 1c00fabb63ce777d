"""Writes TensorBoard events: scalars, the configuration as text, samples, and hyperparameters."""

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from awares_platform.runtime.tracking.tracker import SampleRow, TrackedJob

_PAUSE_S = 60.0
"""After an error, the tracker writes no values for this number of seconds."""


class TensorBoard:
    """A Tracker that writes events to <job>/tensorboard.

    After an error, such as a full disk, the tracker drops values for `pause_s` seconds.
    Raises ImportError if TensorBoard is not installed.
    """

    def __init__(self, job: TrackedJob, pause_s: float = _PAUSE_S) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._open, self._job = SummaryWriter, job
        self._directory = job.directory / "tensorboard"
        self._writers: dict[str, Any] = {}
        self._last: dict[str, float] = {}
        self._pause_s, self._paused_until = pause_s, -math.inf

    def start(self) -> None:
        """Create the directory."""
        self._directory.mkdir(parents=True, exist_ok=True)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Write each value as a scalar."""
        self._last |= values
        if not self._paused():
            with self._renewed(""):
                writer = self._writer("", step)
                for key, value in values.items():
                    writer.add_scalar(key, value, step)

    def series(self, step: int, area: str, values: Mapping[str, Mapping[str, float]]) -> None:
        """Write the values of each series under the tags "area/name"."""
        for name, row in values.items():
            self._last |= {f"{name}/{key}": value for key, value in row.items()}
            if not self._paused():
                with self._renewed(name):
                    writer = self._writer(name, step)
                    for key, value in row.items():
                        writer.add_scalar(f"{area}/{key}", value, step)

    def samples(self, step: int, rows: Sequence[SampleRow]) -> None:
        """Write each sample as an image and a text."""
        import numpy as np

        if self._paused():
            return
        with self._renewed(""):
            writer = self._writer("", step)
            for index, row in enumerate(rows):
                tag = f"samples/{index}"
                writer.add_image(tag, np.asarray(row.image.convert("RGB")), step, dataformats="HWC")
                writer.add_text(tag, describe(row), step)

    def close(self) -> None:
        """Write the settings as hyperparameters, and the last values as their results."""
        from torch.utils.tensorboard.summary import hparams

        if self._last:
            results = {f"last/{key}": value for key, value in self._last.items()}
            writer = self._writer("", 0)
            for summary in hparams(self._job.flat(), results):
                writer.file_writer.add_summary(summary)
            for key, value in results.items():
                writer.add_scalar(key, value)
        for writer in self._writers.values():
            writer.close()

    def _paused(self) -> bool:
        return time.monotonic() < self._paused_until

    @contextmanager
    def _renewed(self, series: str) -> Iterator[None]:
        """If the block raises an error, drop the writer of `series`, and pause for `pause_s`."""
        try:
            yield
        except Exception:
            self._writers.pop(series, None)
            self._paused_until = time.monotonic() + self._pause_s
            raise

    def _writer(self, series: str, step: int) -> Any:
        if series not in self._writers:
            place = self._directory / series
            purge = step if _has_events(place) else None
            self._writers[series] = self._open(str(place), purge_step=purge)
            if not series:
                text = json.dumps(self._job.settings, indent=1)
                lines = "".join(f"    {line}\n" for line in text.splitlines())
                self._writers[series].add_text("configuration", lines, step)
        return self._writers[series]


def _has_events(directory: Path) -> bool:
    return any(directory.glob("events.out.tfevents.*"))


def describe(row: SampleRow) -> str:
    """Return a sample as Markdown: question, answer, truth, crops and reward."""
    verdict = "right" if row.correct else "wrong"
    parts = ", ".join(f"{name} {value:.3g}" for name, value in row.parts.items())
    reward = "unknown" if row.reward is None else f"{row.reward:.3f}"
    lines = (
        f"**{row.question}**",
        f"{row.answer if row.answer is not None else 'no answer'} ({verdict}; truth: {row.truth})",
        f"crops: {row.crops or 'none'}",
        f"reward: {reward}{f' ({parts})' if parts else ''}",
    )
    return "  \n".join(lines)
