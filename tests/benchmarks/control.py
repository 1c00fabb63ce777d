"""Measures the controller of the grpo job with 10 to 1,000 simulated rollout actors.

    PYTHONPATH=.:platform .venv/bin/python tests/benchmarks/control.py

Actors, reward workers and learner are simulated. The figures leave out the simulation's CPU time.
"""

import asyncio
import math
import pickle
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from awares_platform.config.grpo import GrpoConfig
from awares_platform.grpo.buffer import EpisodeBuffer
from awares_platform.grpo.collecting import collect_rarely
from awares_platform.grpo.controller import Controller
from awares_platform.grpo.group import Position
from awares_platform.grpo.journal import Journal
from awares_platform.grpo.prompts import Prompts
from awares_platform.grpo.record_book import StoredBook
from awares_platform.grpo.shard import StepShard
from awares_platform.grpo.validation import HeldOut, Validation
from awares_platform.store import ObjectStore
from tests.benchmarks.command import Screen, parser, save
from tests.benchmarks.control_fleet import Fleet, samples
from tests.benchmarks.local_store import local_store

WARM_STEPS = 2
"""The number of steps before the measurement. The first batches wait for the first episodes."""
WORKERS = 1.25
"""The number of reward workers, divided by the smallest number that keeps up with the learner."""
TICK_S = 0.005
"""The length of a timer in seconds. The lag of the event loop is how late this timer ends."""


@dataclass(frozen=True, slots=True)
class Figures:
    """The measurements of a run with `actors` simulated actors.

    Example:
        Figures(1000, 799.8, cpu_ms=0.6, loop_ms=0.3, lag_ms=40.0, lag_p99_ms=8.0)
    """

    actors: int
    groups_s: float
    """Groups per second."""
    cpu_ms: float
    """CPU milliseconds of the controller's process per group, without the simulation."""
    loop_ms: float
    """The part of `cpu_ms` that the thread of the event loop takes."""
    lag_ms: float
    """The largest lag of the event loop, in milliseconds."""
    lag_p99_ms: float
    """The 99th percentile of the lag, in milliseconds."""

    def row(self) -> str:
        return (
            f"| {self.actors:,} | {self.groups_s:.0f} | {self.cpu_ms:.2f} | {self.loop_ms:.2f} | "
            f"{self.lag_p99_ms:.0f} | {self.lag_ms:.0f} |"
        )


class Lag:
    """Records how late the event loop runs a timer."""

    def __init__(self) -> None:
        self.late: list[float] = []

    async def watch(self) -> None:
        while True:
            begun = time.perf_counter()
            await asyncio.sleep(TICK_S)
            self.late.append(time.perf_counter() - begun - TICK_S)

    def percentile(self, share: float) -> float:
        late = sorted(self.late)
        return late[min(len(late) - 1, int(share * len(late)))]


async def learn(controller: Controller, fleet: Fleet, steps: range, rate: float) -> None:
    """Take the batches of `steps`, at most `rate` groups a second. Publish after each batch.

    As in a run, a thread pickles each batch, and the learner asks which images the next batch has.
    """
    size, begun = fleet.settings.groups_per_step, time.perf_counter()
    async with asyncio.TaskGroup() as warming:
        for done, step in enumerate(steps, 1):
            shard = await controller.batch(step, step, 0, 1)
            assert isinstance(shard, StepShard)
            await asyncio.to_thread(pickle.dumps, shard, 5)
            if step + 1 in steps:
                warming.create_task(controller.upcoming(step + 1, step + 1, 0, 1))
            fleet.publish(step + 1)
            await controller.learned(step, {})
            assert await controller.record(done - 1) is not None
            await asyncio.sleep(begun + done * size / rate - time.perf_counter())


async def fail(error: Exception) -> None:
    raise error


async def measure(fleet: Fleet, store: ObjectStore, rate: float, steps: int) -> Figures:
    settings, prompts = fleet.settings, Prompts(samples(), 0)
    buffer = EpisodeBuffer(prompts, settings.groups_per_step, settings.staleness_bound)
    journal = Journal(store, f"control-{settings.rollout_actors}", "start")
    async with fleet.pool(fail) as score:
        idle = Validation(
            HeldOut((), lambda *_: 0.0, settings.validation, settings.steps),
            score,
            StoredBook(store, "idle"),
        )
        controller = Controller(settings, buffer, journal, score, fleet.spawn, idle)
        running = asyncio.create_task(controller.run())
        await controller.attach(0, Position())
        await learn(controller, fleet, range(WARM_STEPS), rate)
        lag = Lag()
        watching = asyncio.create_task(lag.watch())
        spent, wall = fleet.spent_s, time.perf_counter()
        process, loop = time.process_time(), time.thread_time()
        await learn(controller, fleet, range(WARM_STEPS, WARM_STEPS + steps), rate)
        wall, spent = time.perf_counter() - wall, fleet.spent_s - spent
        process, loop = time.process_time() - process, time.thread_time() - loop
        watching.cancel()
        await controller.close()
        await running
    groups = steps * settings.groups_per_step
    return Figures(
        settings.rollout_actors,
        groups / wall,
        (process - spent) / groups * 1e3,
        (loop - spent) / groups * 1e3,
        lag.percentile(1.0) * 1e3,
        lag.percentile(0.99) * 1e3,
    )


def table(figures: list[Figures], rate: float) -> str:
    head = "| actors | groups/s | CPU a group, ms | event loop's part, ms | lag p99, ms | lag, ms |"
    note = f"The learner takes at most {rate:g} groups a second; a group has 8 episodes."
    return "\n".join([head, "|---|---|---|---|---|---|", *(one.row() for one in figures), "", note])


def main() -> None:
    options = parser(__doc__, "measure fewer steps", "control")
    options.add_argument("--rate", type=float, default=800.0, help="groups a second")
    options.add_argument("--actors", type=int, nargs="+", default=[10, 100, 1000])
    options.add_argument("--step", type=int, default=1600, help="groups of a learner step")
    options.add_argument("--reward-ms", type=float, default=63.0, help="a worker's time a group")
    given = options.parse_args()
    steps, figures = 3 if given.quick else 10, []
    with tempfile.TemporaryDirectory() as place, local_store(Path(place)) as store, Screen() as out:
        for actors in given.actors:
            out.tell(f"{actors} actors")
            settings = GrpoConfig(
                rollout_actors=actors,
                groups_in_flight=4,
                groups_per_step=given.step,
                reward_workers=math.ceil(given.rate * given.reward_ms / 1e3 * WORKERS),
            )
            collect_rarely(settings)
            fleet = Fleet(settings, given.rate, given.reward_ms / 1e3)
            figures.append(asyncio.run(measure(fleet, store, given.rate, steps)))
            out.show(figures[-1].row())
    text = table(figures, given.rate)
    print(text)
    save(given, "control", text, [asdict(one) for one in figures])


if __name__ == "__main__":
    main()
