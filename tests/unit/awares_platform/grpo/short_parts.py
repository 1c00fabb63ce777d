"""Fake controllers and trainers that end soon, and a supervisor that runs them."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from ray.exceptions import ActorDiedError

from awares_platform.config import PlatformConfig
from awares_platform.grpo.order import Restoration
from awares_platform.grpo.step_rows import StepRow
from awares_platform.grpo.supervisor import Supervisor
from awares_platform.runtime.collected_warnings import Sign
from awares_platform.runtime.progress import Progress


class Method:
    """A fake method of an actor handle. Its `remote` returns an awaitable, as Ray's does."""

    def __init__(self, work: Callable[..., Coroutine[Any, Any, Any]]) -> None:
        self.remote = lambda *arguments: asyncio.ensure_future(work(*arguments))


class Part:
    """A fake Ray actor, which runs in this process and is its own handle.

    It stops answering after `silent_after` pings. After `kill`, it raises Ray's error for a dead
    actor.
    """

    def __init__(self, silent_after: int | None = None) -> None:
        self.silent_after, self.pings = silent_after, 0
        self.dead = asyncio.Event()
        self.warnings: tuple[str, ...] = ()
        self.ping = Method(self._ping)

    def kill(self) -> None:
        self.dead.set()

    async def _ping(self) -> Sign:
        self.pings += 1
        if self.silent_after is not None and self.pings > self.silent_after:
            await asyncio.Event().wait()
        if self.dead.is_set():
            raise ActorDiedError
        warnings, self.warnings = self.warnings, ()
        return Sign(0, warnings)


class ShortController(Part):
    """A controller that reports each step of the range `steps`.

    After the last step, the controller ends if `ended` is true. Otherwise it waits until it is
    killed.
    """

    def __init__(self, steps: range, ended: bool, silent_after: int | None = None) -> None:
        super().__init__(silent_after)
        self.steps, self.ended = steps, ended
        self.open, self.run = Method(self._open), Method(self._run)
        self.record, self.shown = Method(self._record), Method(self._shown)
        self.figures: dict[str, float] = {}
        self.reported: set[int] | None = None
        # The version that each call of `restore` restores, or None if none can be restored.
        self.restored: list[int | None] = []
        self.restore = Method(self._restore)
        self.hand_over = Method(self._hand_over)

    async def _open(self, config: PlatformConfig, reported: set[int]) -> tuple[int, int]:
        self.reported = reported
        return 7, 1

    async def _run(self) -> None:
        pass

    async def _record(self, written: int) -> StepRow | None:
        if written < len(self.steps):
            step = self.steps[written]
            return step, {"reward/mean": float(step), **self.figures}
        if not self.ended:
            await self.dead.wait()
            raise ActorDiedError
        return None

    async def _restore(self, most: int) -> Restoration:
        return Restoration(self.restored.pop(0), 0 if self.restored else most)

    async def _hand_over(self, claim: str, within_s: float) -> tuple[int, bool]:
        return 0, True

    async def _shown(self, count: int) -> tuple[int, tuple[()]]:
        return 0, ()


class ShortTrainer(Part):
    """A trainer whose training ends at once. It raises `error` if one is given."""

    def __init__(self, error: Exception | None = None, silent_after: int | None = None) -> None:
        super().__init__(silent_after)
        self.error, self.fit = error, Method(self._fit)

    async def _fit(self, config: PlatformConfig, controller: Any, loop: Any) -> None:
        if self.error is not None:
            raise self.error


class Record:
    """A fake record of a run, in memory. `steps` lists the steps with recorded metrics."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.steps: list[int] = []

    def metrics(self, step: int, values: dict[str, float]) -> None:
        self.steps.append(step)

    def samples(self, step: int, rows: Callable[[], Any]) -> None:
        assert step in self.steps or not self.steps


Start = Callable[[], tuple[ShortController, ShortTrainer]]


def steered(
    record: Any, starts: list[Start], restarts: int, guards: dict[str, Any] | None = None
) -> tuple[dict[str, float], list[Part]]:
    """Run a supervisor. Return the job's metrics and the killed parts.

    Each attempt of the supervisor calls the next function of `starts`, which makes a controller and
    a trainer.
    """
    config = PlatformConfig.model_validate(
        {
            "run": {"directory": str(record.directory), "hang_timeout_s": 0.5},
            "store": {"endpoint": "http://127.0.0.1:1"},
            "grpo": {"learner_restarts": restarts, "guards": guards or {}},
        }
    )
    killed: list[Part] = []

    def kill(part: Part) -> None:
        part.kill()
        killed.append(part)

    supervisor = Supervisor(config, lambda: starts.pop(0)(), {"claim": "the claim"}, kill)
    with Progress("grpo") as progress:
        return supervisor.steer(record, progress), killed
