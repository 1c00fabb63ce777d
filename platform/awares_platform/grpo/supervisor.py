"""Starts the controller and the trainer of the grpo job, and restarts both if one is lost.

    this driver --ping--> controller, trainer          both run on the driver's node
         |  ^-- record: the metrics of each step
         +-- a part is dead or hangs: kill both, start both; they go on from the last checkpoint
         +-- SIGTERM: the journal keeps unfinished groups, the learner saves a checkpoint, kill both

The controller watches the rollout actors (fleet.py). Ray Train, inside the trainer, watches the
learner's ranks, and each rank watches its own passes (training/pulse.py).
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import ray

from awares.errors import AwaresError
from awares_platform.config import PlatformConfig
from awares_platform.data.dataset import Images
from awares_platform.grpo.driving import HAND_BACK_S
from awares_platform.grpo.guards import Guards, GuardTripped
from awares_platform.grpo.sample_table import sample_rows
from awares_platform.grpo.sizing import least_actors
from awares_platform.grpo.step_rows import StepRow
from awares_platform.runtime import event_loop
from awares_platform.runtime.collected_warnings import Sign
from awares_platform.runtime.driver import needs, reply
from awares_platform.runtime.job_lease import JobFenced
from awares_platform.runtime.metrics import read
from awares_platform.runtime.progress import Progress
from awares_platform.runtime.run import Run
from awares_platform.runtime.watch import FailureRate, Waiting, guarded, restarting, watch
from awares_platform.store import ObjectStore
from awares_platform.training.failure import unwrapped

CONTROLLER, TRAINER = "the controller", "the trainer"
STOP_S = 25.0
"""Seconds that the actors and the learner get after SIGTERM. A pod usually gets 30 seconds."""


class Supervisor:
    """The driver's side of the grpo job.

    `start` starts the controller and the trainer as Ray actors, and returns their handles. `loop`
    holds the learner's arguments.

    Example:
        metrics = Supervisor(config, start, loop).steer(record, progress)
    """

    def __init__(
        self,
        config: PlatformConfig,
        start: Callable[[], tuple[Any, Any]],
        loop: Mapping[str, Any],
        kill: Callable[[Any], None] = ray.kill,
    ) -> None:
        self._config, self._settings = config, config.grpo
        self._start, self._loop, self._kill = start, dict(loop), kill
        self._images = Images.of(ObjectStore.from_config(config.store), config.data)
        asks = config.method.max_turns > 1
        self._guards = Guards(config.grpo.guards, config.run.directory, asks=asks)
        self._metrics: dict[str, float] = {}
        self._training: Any = None
        # The number of rows of metrics that this attempt has written.
        self._written = 0

    def steer(self, record: Run, progress: Progress) -> dict[str, float]:
        """Run the job to its end, record each step, and return the last step's metrics.

        Raises the error that stopped the run, or GuardTripped. Raises LaunchError after more than
        grpo.learner_restarts losses within an hour.
        """
        losses = FailureRate(self._settings.learner_restarts)
        restarting(
            lambda: event_loop.run(self._attempt(record, progress)),
            losses,
            "grpo.learner_restarts",
            progress.say,
        )
        return self._metrics

    async def _attempt(self, record: Run, progress: Progress) -> None:
        self._training, self._written = None, 0
        controller, trainer = self._start()
        try:
            await guarded(
                self._train(controller, trainer, record, progress),
                self._watch(CONTROLLER, controller, progress.say, self._short),
                self._watch(TRAINER, trainer, progress.say, self._ranks),
            )
        # SIGTERM raises SystemExit in the running task, and cancels all other tasks.
        except (asyncio.CancelledError, SystemExit):
            await self._hand_over(controller, record, progress)
            raise
        finally:
            self._kill(trainer)
            self._kill(controller)

    async def _hand_over(self, controller: Any, record: Run, progress: Progress) -> None:
        """Let the actors hand back their groups, and the learner save a checkpoint.

        The driver ends after STOP_S seconds at the latest. A learner that has not attached yet has
        nothing to save.
        """
        asked = controller.hand_over.remote(self._loop["claim"], HAND_BACK_S)
        writing = asyncio.create_task(self._write_rest(controller, record))
        progress.say(f"stopping: actors and learner get {STOP_S:g} s to keep what they have begun")
        try:
            async with asyncio.timeout(STOP_S):
                count, attached = await _result(CONTROLLER, asked)
                progress.say(f"the journal keeps {count} unfinished groups for the next job")
                if attached:
                    await _result(TRAINER, self._training)
        except JobFenced:
            return
        except (TimeoutError, AwaresError) as error:
            reason = str(error) or f"they take longer than {STOP_S:g} s"
            progress.say(f"not all groups, or not the learner's last step, are kept: {reason}")
        finally:
            writing.cancel()

    async def _write_rest(self, controller: Any, record: Run) -> None:
        """Write the metrics of the steps that the learner finishes while the job stops."""
        while (item := await reply(CONTROLLER, self._next_row(controller))) is not None:
            self._write(item, record)

    def _next_row(self, controller: Any) -> Any:
        return controller.record.remote(self._written)

    def _write(self, item: StepRow, record: Run) -> None:
        step, metrics = item
        # The learner counts steps from 0. Metrics and console count the finished steps.
        record.metrics(step + 1, metrics)
        self._written += 1

    async def _watch(
        self, name: str, part: Any, say: Callable[[str], None], missing: Callable[[int], str]
    ) -> None:
        """Ping `part`, and show its warnings and the nodes that it waits for.

        `missing` turns the number of processes without a node into a line of text.
        """
        waiting, limit_s = Waiting(say), self._config.run.hang_timeout_s

        def heard(sign: Sign) -> None:
            sign.tell(say)
            waiting.tell(missing(sign.waiting))

        await watch(name, lambda: reply(name, part.ping.remote()), limit_s, heard)

    def _short(self, count: int) -> str:
        """Return a text about the missing actors, or "" if enough actors have a node.

        `count` actors have no node, or are released.
        """
        settings, fewest = self._settings, least_actors(self._settings)
        place = needs(settings.rollout_cpus, settings.rollout_gpus, settings.rollout_selector)
        short = fewest - (settings.rollout_actors - count)
        return f"{short} of {fewest} rollout actors need {place}" if short > 0 else ""

    def _ranks(self, waiting: int) -> str:
        settings = self._settings
        place = needs(settings.learner_cpus, settings.learner_gpus, settings.learner_selector)
        return f"each of {settings.learner_workers} learner ranks needs {place}" if waiting else ""

    async def _train(self, controller: Any, trainer: Any, record: Run, progress: Progress) -> None:
        samples, unusable = await _result(
            CONTROLLER, controller.open.remote(self._config, _reported(record))
        )
        left_out = f" ({unusable} unusable rows left out)" if unusable else ""
        progress.say(f"{samples} samples{left_out}")
        progress.say("starting the engines and the learner")
        tending = controller.run.remote()
        self._training = trainer.fit.remote(self._config, controller, self._loop)
        coming = self._next_row(controller)
        while (item := await reply(CONTROLLER, coming)) is not None:
            self._write(item, record)
            # Ask before the guards: the learner may wait for the row that is written now, and the
            # guards for the learner.
            coming = self._next_row(controller)
            step, metrics = item
            if "validation/version" in metrics:
                progress.say(validation_note(step + 1, metrics))
                await self._guard(controller, step + 1, metrics, progress)
                continue
            self._metrics = metrics
            await self._guard(controller, step + 1, self._metrics, progress)
            progress.advance(step + 1 - progress.done, note=step_note(self._metrics))
            if step % self._config.tracking.samples_every == 0:
                await self._show_samples(controller, record)
        await _result(CONTROLLER, tending)
        await _result(TRAINER, self._training)

    async def _guard(
        self, controller: Any, step: int, metrics: Mapping[str, float], progress: Progress
    ) -> None:
        """Report the metrics outside their bounds, and restore the best version if a guard asks.

        Raises GuardTripped if a guard stops the run, or if the run has already restored the best
        version grpo.guards.max_restores times.
        """
        for alarm in self._guards.check(step, metrics):
            progress.say(alarm.sentence)
            if not alarm.restore:
                continue
            most = self._settings.guards.max_restores
            found = await reply(CONTROLLER, controller.restore.remote(most))
            self._guards.reset()
            if found.version is not None:
                progress.say(f"the learner goes on from version {found.version}, the best one")
                return
            if found.times >= most:
                raise GuardTripped(
                    f"stopped after {alarm.sentence}. The best version was restored {found.times} "
                    f"times, and grpo.guards.max_restores={most} allows no more"
                )
            progress.say("no version is validated yet, so none is restored")

    async def _show_samples(self, controller: Any, record: Run) -> None:
        """Send a table with episodes of the newest step to the trackers."""
        if count := self._config.tracking.samples:
            step, groups = await reply(CONTROLLER, controller.shown.remote(count))
            record.samples(step + 1, lambda: sample_rows(groups, self._images))


async def _result(name: str, task: Any) -> Any:
    """Return the result of a part's `task`. If it fails, raise its error without Ray's wrappers."""
    with unwrapped():
        return await reply(name, task)


def _reported(record: Run) -> set[int]:
    """Return the versions whose validation metrics are in metrics.jsonl."""
    path = record.directory / "metrics.jsonl"
    rows = read(path) if path.exists() else ()
    found = (row.values.get("validation/version") for row in rows)
    return {int(version) for version in found if version is not None}


def validation_note(step: int, metrics: dict[str, float]) -> str:
    """Return a line about a version that was validated."""
    names = {"reward": "reward", "accuracy": "accuracy", "RTR": "rtr_token", "calls": "call_rate"}
    found = [f"{name} {metrics[f'validation/{key}']:.3f}" for name, key in names.items()]
    best = ", the best version so far" if metrics["validation/best"] else ""
    return f"step {step} on {metrics['validation/questions']:.0f} held-out questions: " + (
        f"{', '.join(found)}{best}"
    )


def step_note(metrics: dict[str, float]) -> str:
    """Return a line about a step: its main metrics, its duration, and how busy its parts were."""
    names = {
        "reward": "reward/mean",
        "accuracy": "accuracy/train",
        "RTR": "rtr/token",
        "calls": "call/rate",
        "KL": "policy/kl",
    }
    found = [f"{name} {metrics[key]:.3f}" for name, key in names.items() if key in metrics]
    times = [metrics[key] for key in ("time/wait", "time/learn", "time/publish") if key in metrics]
    found += [f"{sum(times):.1f} s"] if times else []
    shares = {"engines": "engine/busy", "learner": "learner/busy"}
    found += [f"{name} {metrics[key]:.0%} busy" for name, key in shares.items() if key in metrics]
    return ", ".join(found)
