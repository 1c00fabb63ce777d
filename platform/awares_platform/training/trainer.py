"""Runs Ray Train in a process that the driver watches and can replace.

    driver --watch--> TrainingProcess (actor beside the driver) --poll--> workers (Ray Train)

By default, Ray Train controls its workers from an actor of its own. If this actor hangs, nobody
notices. Here the TrainingProcess itself controls the workers, so Ray Train needs no such actor.
"""

import asyncio
import os
from collections.abc import Callable
from typing import Any

from ray.train import Result
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.constants import WORKER_HEALTH_CHECK_TIMEOUT_S_ENV_VAR
from ray.train.v2._internal.execution.controller import TrainController

from awares_platform.runtime.collected_warnings import CollectedWarnings, Sign

_WAITING = {"INITIALIZING", "SCHEDULING", "RESCHEDULING", "RESTARTING"}
"""Ray Train's states in which no worker runs."""


class ThisProcessTrainer(TorchTrainer):
    """A TorchTrainer whose controller runs in the calling process.

    `started` is called with the controller before the controller begins to run.
    """

    started: Callable[[TrainController], None]

    def _initialize_and_run_controller(self, **arguments: Any) -> Result:
        controller = TrainController(**arguments)
        self.started(controller)
        asyncio.run(controller.run())
        return controller.get_result()


class TrainingProcess:
    """The base class of an actor that runs Ray Train. Start the actor with `max_concurrency=2`.

    One thread runs `train`, and the other answers `ping`.
    """

    _controller: TrainController | None = None

    def __init__(self) -> None:
        self._warnings = CollectedWarnings.collect()

    def train(self, trainer: ThisProcessTrainer, hang_timeout_s: float) -> None:
        """Run the trainer to its end.

        Ray Train replaces all workers if one of them answers no health check for `hang_timeout_s`
        seconds. Raises TrainingFailedError if training fails.
        """
        os.environ[WORKER_HEALTH_CHECK_TIMEOUT_S_ENV_VAR] = str(hang_timeout_s)
        trainer.started = self._steered_by
        trainer.fit()

    def ping(self) -> Sign:
        """Return a Sign. Its `waiting` is 1 while Ray Train starts workers, and otherwise 0."""
        return Sign(int(self._waits()), self._warnings.take())

    def _waits(self) -> bool:
        if self._controller is None:
            return False
        return self._controller.get_state()._state_type.state_name in _WAITING

    def _steered_by(self, controller: TrainController) -> None:
        self._controller = controller
