"""Starts the trackers of a job, and sends values to all of them."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

from awares.errors import ConfigError
from awares_platform.config.tracking import TrackingConfig
from awares_platform.runtime.tracking.courier import Courier
from awares_platform.runtime.tracking.mlflow_runs import MlflowRuns
from awares_platform.runtime.tracking.tensorboard import TensorBoard
from awares_platform.runtime.tracking.tracker import SampleRow, TrackedJob, Tracker
from awares_platform.runtime.tracking.weights_and_biases import WeightsAndBiases


class Tracking:
    """The trackers of one job. No method raises an error of a tracker.

    Example:
        tracking = Tracking.of(config.tracking, job)
        tracking.metrics(3, {"reward/mean": 8.4})
        tracking.close()
    """

    def __init__(self, trackers: Mapping[str, Tracker]) -> None:
        self._couriers = [Courier(name, tracker) for name, tracker in trackers.items()]

    @classmethod
    def of(cls, settings: TrackingConfig, job: TrackedJob) -> "Tracking":
        """Start TensorBoard if it is installed, and the trackers that `settings` names.

        Raises ConfigError if the package of a named tracker is not installed.
        """
        trackers: dict[str, Tracker] = {}
        try:
            trackers["TensorBoard"] = TensorBoard(job)
        except ImportError:
            pass  # TensorBoard is optional, because metrics.jsonl holds the same values.
        if settings.wandb:
            trackers["W&B"] = _installed("tracking.wandb", "wandb", lambda: WeightsAndBiases(job))
        if settings.mlflow:
            make = lambda: MlflowRuns(job, settings.mlflow)  # noqa: E731
            trackers["MLflow"] = _installed("tracking.mlflow", "mlflow", make)
        return cls(trackers)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Send the finite values of a step."""
        finite = _finite(values)
        self._send(lambda tracker: tracker.metrics(step, finite))

    def series(self, step: int, area: str, values: Mapping[str, Mapping[str, float]]) -> None:
        """Send the finite values of several series."""
        finite = {name: _finite(row) for name, row in values.items()}
        self._send(lambda tracker: tracker.series(step, area, finite))

    def samples(self, step: int, rows: Callable[[], Sequence[SampleRow]]) -> None:
        """Send a table of samples.

        A tracker's thread calls `rows`, so `rows` may take long, for example to draw images.
        """
        once = lru_cache(rows)
        self._send(lambda tracker: tracker.samples(step, once()))

    def close(self) -> None:
        """Close all trackers."""
        for courier in self._couriers:
            courier.close()

    def _send(self, call: Callable[[Tracker], None]) -> None:
        for courier in self._couriers:
            courier.send(call)


def _installed(key: str, extra: str, make: Callable[[], Tracker]) -> Tracker:
    try:
        return make()
    except ImportError as error:
        raise ConfigError(
            f"{key} is set, but {extra} is not installed ({error}): "
            f"run `pip install 'awares-train[{extra}]'`, or unset {key}"
        ) from error


def _finite(values: Mapping[str, float]) -> dict[str, float]:
    return {key: float(value) for key, value in values.items() if math.isfinite(value)}
