"""Connects a controller with fake actors and a fake journal. A test acts as the learner."""

import asyncio
import json
import math
import threading
from collections.abc import AsyncIterator, Callable, Collection, Container, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from awares.episode import Episode, StopReason
from awares.reward import RewardValue
from awares.sample import Sample
from awares_platform.config.grpo import GrpoConfig
from awares_platform.grpo.buffer import EpisodeBuffer
from awares_platform.grpo.controller import Controller
from awares_platform.grpo.group import Group, GroupRollout, Member, Outcome, Position, Prompt
from awares_platform.grpo.journal import Recovered, latest_attempts
from awares_platform.grpo.prompts import Prompts
from awares_platform.grpo.record_book import ValidationRecord
from awares_platform.grpo.scoring import Scoring
from awares_platform.grpo.segment import Training
from awares_platform.grpo.shard import StepShard
from awares_platform.grpo.step_rows import StepRow
from awares_platform.grpo.validation import HeldOut, Validation
from awares_platform.store.errors import StoreUnavailable
from tests.unit.awares_platform.grpo.fake_actor import Bus, FakeActor

NAN = RewardValue(math.nan, {})


class MemoryJournal:
    """A fake journal that keeps groups in memory. The next `failures` writes fail."""

    def __init__(self, groups: Sequence[Group] = ()) -> None:
        self.groups = list(groups)
        self.root: int | None = None
        self.failures = 0

    def append(self, groups: Sequence[Group], training: Training | None = None) -> None:
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable("s3://awares/x: unavailable for the whole retry budget")
        self.groups += groups

    def read(
        self,
        position: Position | None = None,
        stale: Callable[[Collection[int]], bool] = lambda _: False,
    ) -> Recovered:
        groups = latest_attempts(self.groups)
        left = {group.prompt.number: 0 for group in groups if stale(group.versions)}
        return Recovered(tuple(g for g in groups if g.prompt.number not in left), left)


class SlowJournal(MemoryJournal):
    """A fake journal with a slow `read`.

    `read` copies the groups at once, but returns the copy only after the event `may_return` is set.
    """

    def __init__(self, groups: Sequence[Group] = ()) -> None:
        super().__init__(groups)
        self.reading, self.may_return = threading.Event(), threading.Event()

    def read(self, *arguments: Any) -> Recovered:
        held = super().read(*arguments)
        self.reading.set()
        assert self.may_return.wait(10), "the test must set `may_return` within 10 seconds"
        return held


class MemoryBook:
    """A fake record of validated versions, in memory.

    `kept` are the versions whose weights must not be deleted. `unsaved` are the versions whose
    snapshot is not complete.
    """

    def __init__(self) -> None:
        self.record = ValidationRecord()
        self.kept: set[int] = set()
        self.unsaved: set[int] = set()

    def read(self) -> ValidationRecord:
        return ValidationRecord.of(json.loads(self.record.to_bytes()))

    def write(self, record: ValidationRecord) -> None:
        self.record = ValidationRecord.of(json.loads(record.to_bytes()))

    def keep(self, version: int) -> None:
        self.kept.add(version)

    def drop(self, version: int) -> None:
        self.kept.discard(version)

    def complete(self, version: int) -> bool:
        return version not in self.unsaved


class Stage:
    """A controller with its settings, its fake actors and its fake journal.

    `held_out` are the questions of validation. `book` records the validated versions. `reported`
    are the versions whose validation the run's metrics already show.
    """

    def __init__(
        self,
        samples: list[Sample],
        episode: Callable[..., Episode],
        journal: MemoryJournal | None = None,
        hang_timeout_s: float = 90.0,
        held_out: Sequence[Sample] = (),
        book: MemoryBook | None = None,
        reported: Collection[int] = (),
        **settings: Any,
    ) -> None:
        self.settings = GrpoConfig.model_validate(
            {
                "groups_per_step": 2,
                "group_size": 2,
                "staleness_bound": 1,
                "groups_in_flight": 2,
                **settings,
            }
        )
        self.bus, self.log = Bus(), []
        # The number of rows of metrics that `row` has returned.
        self.rows = 0
        # While this event is not set, new actors wait for a node.
        self.placed = asyncio.Event()
        self.placed.set()
        self.journal = journal or MemoryJournal()
        self.spawned: list[FakeActor] = []
        # The number of the prompt at which each actor dies, or None.
        self.dies_at: list[int | None] = []
        # The version at which the actors report a canary mismatch.
        self.mismatch_at: int | None = None
        # The value of `FakeActor.slow_from` for each actor, or None.
        self.slow_from: list[int | None] = []
        self.episode = episode
        # The outcome of all groups that can be played and have finite rewards.
        self.outcome = Outcome.READY
        # The ids of the samples that cannot be played, because the question is too long.
        self.unplayable: set[str] = set()
        # Whether a reward worker is ready.
        self.can_score = True
        # The numbers of the prompts for which the reward returns NaN.
        self.nan_rewards: Container[int] = ()
        buffer = EpisodeBuffer(
            Prompts(samples, 0), self.settings.groups_per_step, self.settings.staleness_bound
        )
        held: Any = self.journal
        self.book = book or MemoryBook()
        # Maps an answer to its reward. All other answers have the reward 1.
        self.rewards: dict[str | None, float] = {}
        steps, validation = self.settings.steps, self.settings.validation
        self.controller = Controller(
            self.settings,
            buffer,
            held,
            self.score,
            self.spawn,
            Validation(
                HeldOut(
                    tuple(held_out),
                    lambda answer, one: float(answer == one.answer),
                    validation,
                    steps,
                ),
                self.score,
                self.book,
                reported,
            ),
            hang_timeout_s=hang_timeout_s,
            can_score=lambda: self.can_score,
        )

    def spawn(self, index: int) -> FakeActor:
        dies_at = self.dies_at.pop(0) if self.dies_at else None
        self.spawned.append(
            FakeActor(
                self.bus,
                self.episode,
                self.log,
                f"actor{len(self.spawned)}",
                dies_at,
                self.placed,
            )
        )
        self.spawned[-1].mismatch_at = self.mismatch_at
        self.spawned[-1].slow_from = self.slow_from.pop(0) if self.slow_from else None
        return self.spawned[-1]

    async def score(self, prompt: Prompt, rollout: GroupRollout) -> Group:
        if prompt.sample.sample_id in self.unplayable:
            unplayed = replace(
                rollout.episodes[0], turns=(), stop=StopReason.ERROR, error="shorten the question"
            )
            member = Member(unplayed, RewardValue(0.0, {}), False, None)
            return Group(prompt, (member,), Outcome.UNPLAYABLE)
        if prompt.number in self.nan_rewards:
            scoring = Scoring(lambda episodes, samples: [NAN] * len(episodes), self.settings)
            return scoring(prompt, rollout)
        members = tuple(
            Member(
                episode,
                RewardValue(self.rewards.get(episode.answer, 1.0), {}),
                True,
                1.0 - 2 * index,
            )
            for index, episode in enumerate(rollout.episodes)
        )
        return Group(prompt, members, self.outcome, 1.0)

    async def row(self) -> StepRow | None:
        """Return the next row of metrics, or None after the last, as the driver gets it."""
        row = await self.controller.record(self.rows)
        self.rows += row is not None
        return row

    @property
    def finished(self) -> int:
        """The number of groups that the controller has received.

        This number includes groups that the controller has not yet written to the journal.
        """
        return len(self.controller._recorder.unwritten) + len(self.journal.groups)

    def played(self) -> list[int]:
        return [int(line.split()[-1]) for line in self.log if "plays" in line]

    async def rest(self, prompts: int) -> list[int]:
        """Wait until the actors have begun `prompts` prompts, and then 0.05 s more.

        Return the numbers of all begun prompts. The controller may issue more than `prompts`.
        """
        async with asyncio.timeout(30):
            while len(self.played()) < prompts:
                await asyncio.sleep(0.001)
        await asyncio.sleep(0.05)
        return self.played()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the controller, attach a learner at step 0, and close the controller at the end."""
        run = asyncio.create_task(self.controller.run())
        await self.controller.attach(0, Position())
        yield
        await self.controller.close()
        await run

    async def step(self, step: int, version: int) -> list[int] | None:
        """Take one learner step and publish `version` + 1, or return None if there is no batch.

        Return the numbers of the prompts that need no further play: the learner has their group, or
        the group is useless.
        """
        shard = await self.controller.batch(step, version, 0, 1)
        if not isinstance(shard, StepShard):
            return None
        self.bus.publish(version + 1)
        await self.controller.announce(version + 1)
        await self.controller.learned(step, {"policy/kl": 0.0})
        position = shard.position
        return [number for number in range(position.watermark + 10) if number in position]


def play(scene: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await scene

    asyncio.run(bounded())


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)
