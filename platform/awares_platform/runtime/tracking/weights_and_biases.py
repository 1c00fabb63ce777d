"""Sends a job to Weights & Biases."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from awares_platform.runtime.tracking.tracker import SampleRow, TrackedJob

STEP = "step"
"""The key under which the step is logged as a value.

W&B's own step cannot be used: it must never decrease, but a resumed job repeats steps.
"""


class WeightsAndBiases:
    """A Tracker for W&B. Each job is one W&B run, which a resumed job continues.

    Without a network, users set WANDB_MODE=offline and send the files later with `wandb sync
    --append`. Raises ImportError if wandb is not installed.
    """

    def __init__(self, job: TrackedJob) -> None:
        # W&B copies images to this directory before it sends them. The default is below $HOME.
        os.environ.setdefault("WANDB_DATA_DIR", str(job.directory / "wandb"))
        import wandb

        self._wandb, self._job = wandb, job
        self._run: Any = None

    def start(self) -> None:
        """Start the run, or resume it. Raises RuntimeError without an API key."""
        settings = self._wandb.Settings(
            silent=True, console="off", disable_git=True, disable_code=True, x_disable_stats=True
        )
        offline = self._wandb.setup().settings.mode in ("offline", "disabled", "dryrun")
        if not offline and not self._wandb.login(prompt=False):
            raise RuntimeError("no API key; set WANDB_API_KEY, or WANDB_MODE=offline")
        self._run = self._wandb.init(
            project=self._job.project,
            id=self._job.name,
            name=self._job.name,
            group=self._job.run,
            job_type=self._job.job,
            resume="allow",
            dir=str(self._job.directory),
            config=dict(self._job.settings),
            settings=settings,
        )
        self._run.define_metric(STEP, hidden=True)
        self._run.define_metric("*", step_metric=STEP)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Log the values together with the step."""
        self._run.log({**values, STEP: step})

    def series(self, step: int, area: str, values: Mapping[str, Mapping[str, float]]) -> None:
        """Log each metric of each series under the key "series/metric"."""
        rows = values.items()
        self.metrics(step, {f"{name}/{key}": x for name, row in rows for key, x in row.items()})

    def samples(self, step: int, rows: Sequence[SampleRow]) -> None:
        """Log a table with a row for each sample, and a column for each part of the reward."""
        parts = list(dict.fromkeys(name for row in rows for name in row.parts))
        names = [f"reward/{name}" for name in parts]
        columns = ["image", "question", "answer", "truth", "correct", "crops", "reward", *names]
        table = self._wandb.Table(columns=columns)
        for row in rows:
            table.add_data(
                self._wandb.Image(row.image),
                row.question,
                row.answer,
                row.truth,
                row.correct,
                row.crops,
                row.reward,
                *(row.parts.get(name) for name in parts),
            )
        self._run.log({"samples": table, STEP: step})

    def close(self) -> None:
        """Send the remaining values, and finish the W&B run."""
        self._run.finish()
