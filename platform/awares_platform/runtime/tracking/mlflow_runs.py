"""Sends a job to MLflow."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from awares_platform.runtime.tracking.tracker import SampleRow, TrackedJob

TABLE = "samples.json"
"""The artifact with all samples of a job. MLflow shows it as a table."""
_RUN, _JOB = "awares.run", "awares.job"
_BATCH = 100
"""The largest number of settings in one call. MLflow refuses more."""
_LONGEST = 500
"""The largest number of characters of a setting that every MLflow server accepts."""
# MLflow's own limits let one call to a dead server take a quarter of an hour.
_LIMITS = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "20", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2"}


class MlflowRuns:
    """A Tracker for MLflow. Each job is one MLflow run, which a resumed job continues.

    `address` is the URL of a server or a local directory. Raises ImportError if mlflow is not
    installed.
    """

    def __init__(self, job: TrackedJob, address: str) -> None:
        for name, value in _LIMITS.items():
            os.environ.setdefault(name, value)
        if "://" not in address:
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        from mlflow import MlflowClient

        self._connect, self._address, self._job = MlflowClient, address, job
        self._client: Any = None
        self._run = ""

    def start(self) -> None:
        """Create the job's MLflow run, or continue the existing one."""
        from mlflow.entities import Param

        self._client = self._connect(self._address)
        experiment = self._experiment()
        if found := self._found(experiment):
            self._run = found
            self._client.update_run(found, status="RUNNING")
            return
        tags = {_RUN: self._job.run, _JOB: self._job.job}
        created = self._client.create_run(experiment, run_name=self._job.name, tags=tags)
        self._run = created.info.run_id
        params = [Param(key, str(value)[:_LONGEST]) for key, value in self._job.flat().items()]
        for start in range(0, len(params), _BATCH):
            self._client.log_batch(self._run, params=params[start : start + _BATCH])

    def _experiment(self) -> str:
        known = self._client.get_experiment_by_name(self._job.project)
        if known is not None:
            return known.experiment_id
        return self._client.create_experiment(self._job.project)

    def _found(self, experiment: str) -> str | None:
        wanted = f"tags.`{_RUN}` = '{self._job.run}' and tags.`{_JOB}` = '{self._job.job}'"
        runs = self._client.search_runs([experiment], wanted, max_results=1)
        return runs[0].info.run_id if runs else None

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Log the values."""
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        metrics = [Metric(key, value, now, step) for key, value in values.items()]
        self._client.log_batch(self._run, metrics=metrics)

    def series(self, step: int, area: str, values: Mapping[str, Mapping[str, float]]) -> None:
        """Log the values of each series under keys "series/name"."""
        rows = values.items()
        self.metrics(step, {f"{name}/{key}": x for name, row in rows for key, x in row.items()})

    def samples(self, step: int, rows: Sequence[SampleRow]) -> None:
        """Append the samples to the job's table."""
        table = [dict(_cells(step, row)) for row in rows]
        columns = list(dict.fromkeys(key for row in table for key in row))
        data = {key: [row.get(key) for row in table] for key in columns}
        self._client.log_table(self._run, data, TABLE)

    def close(self) -> None:
        """Mark the run as finished."""
        self._client.set_terminated(self._run)


def _cells(step: int, row: SampleRow) -> Iterator[tuple[str, Any]]:
    yield from (("step", step), ("image", row.image), ("question", row.question))
    yield from (("answer", row.answer), ("truth", row.truth), ("correct", row.correct))
    yield from (("crops", row.crops), ("reward", row.reward))
    yield from ((f"reward/{name}", value) for name, value in row.parts.items())
