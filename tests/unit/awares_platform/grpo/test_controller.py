"""The controller with fake actors and a journal in memory. The test plays the learner."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any

import pytest

from awares.episode import Episode
from awares.reward import RewardValue
from awares.sample import Sample
from awares_platform.config.grpo import GrpoConfig
from awares_platform.engine.follow import Loaded
from awares_platform.engine.load import LoadReport, Prefetched
from awares_platform.grpo.buffer import EpisodeBuffer
from awares_platform.grpo.controller import ActorLost, Controller
from awares_platform.grpo.group import Group, GroupRollout, Member, Outcome, Position, Prompt
from awares_platform.grpo.prompts import Prompts
from awares_platform.store.errors import LaunchError


class Bus:
    """Holds the newest version, which actors see at once."""

    def __init__(self) -> None:
        self.head = 0
        self.changed = asyncio.Event()

    def publish(self, version: int) -> None:
        self.head = version
        self.changed.set()
        self.changed = asyncio.Event()


class FakeActor:
    """Plays every prompt with its weights. It dies while it plays prompt `dies_at`."""

    def __init__(
        self,
        bus: Bus,
        episode: Callable[..., Episode],
        log: list[str],
        name: str,
        dies_at: int | None = None,
    ) -> None:
        self.bus, self.episode, self.log, self.name, self.dies_at = bus, episode, log, name, dies_at
        self.version = -1
        self.dead = asyncio.Event()
        self.mismatch_at: int | None = None

    async def start(self) -> None:
        self.log.append(f"start {self.name}")

    async def follow(self) -> AsyncIterator[Loaded]:
        while True:
            if self.version != self.bus.head:
                self.version = self.bus.head
                if self.version == self.mismatch_at:
                    raise ValueError(f"canary of version {self.version}")
                yield Loaded(
                    LoadReport(self.version, Prefetched(1, 0, 0, 0.0, 0.0, 0.0), 0.01, 0.01, 0.001),
                    0.1,
                )
            changing = asyncio.ensure_future(self.bus.changed.wait())
            dying = asyncio.ensure_future(self.dead.wait())
            await asyncio.wait([changing, dying], return_when=asyncio.FIRST_COMPLETED)
            if self.dead.is_set():
                raise ActorLost(self.name)

    async def rollout(self, prompt: Prompt) -> GroupRollout:
        version = self.version
        self.log.append(f"{self.name} plays {prompt.number}")
        if prompt.number == self.dies_at:
            self.dead.set()
        await asyncio.sleep(0.001)
        if self.dead.is_set():
            raise ActorLost(self.name)
        return GroupRollout((self.episode(version), self.episode(version)), 0.0, 1.0)

    def kill(self) -> None:
        self.log.append(f"kill {self.name}")


class MemoryJournal:
    def __init__(self, groups: Sequence[Group] = ()) -> None:
        self.groups = list(groups)

    def append(self, groups: Sequence[Group]) -> None:
        self.groups += groups

    def read(self) -> list[Group]:
        return list(self.groups)


class SlowJournal(MemoryJournal):
    """A journal whose read takes its content at once, and returns it when the test says so."""

    def __init__(self, groups: Sequence[Group] = ()) -> None:
        super().__init__(groups)
        self.reading, self.may_return = threading.Event(), threading.Event()

    def read(self) -> list[Group]:
        held = super().read()
        self.reading.set()
        assert self.may_return.wait(10), "the test never lets the read return"
        return held


class Stage:
    """A controller over fakes."""

    def __init__(
        self,
        samples: list[Sample],
        episode: Callable[..., Episode],
        journal: MemoryJournal | None = None,
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
        self.journal = journal or MemoryJournal()
        self.spawned: list[FakeActor] = []
        self.dies_at: list[int | None] = []
        self.mismatch_at: int | None = None
        self.episode = episode
        self.outcome = Outcome.READY
        buffer = EpisodeBuffer(
            Prompts(samples, 0), self.settings.groups_per_step, self.settings.staleness_bound
        )
        journal: Any = self.journal
        self.controller = Controller(self.settings, buffer, journal, self.score, self.spawn)

    def spawn(self, index: int) -> FakeActor:
        dies_at = self.dies_at.pop(0) if self.dies_at else None
        self.spawned.append(
            FakeActor(self.bus, self.episode, self.log, f"actor{len(self.spawned)}", dies_at)
        )
        self.spawned[-1].mismatch_at = self.mismatch_at
        return self.spawned[-1]

    def score(self, prompt: Prompt, rollout: GroupRollout) -> Group:
        members = tuple(
            Member(episode, RewardValue(1.0, {}), True, 1.0 - 2 * index)
            for index, episode in enumerate(rollout.episodes)
        )
        return Group(prompt, members, self.outcome, 1.0)

    @property
    def finished(self) -> int:
        """How many groups the controller has taken in, in the journal or not."""
        return len(self.controller._unwritten) + len(self.journal.groups)

    def played(self) -> list[int]:
        return [int(line.split()[-1]) for line in self.log if "plays" in line]

    async def step(self, step: int, version: int) -> list[int] | None:
        """Take one learner step and publish version + 1. Returns the prompts settled by then."""
        shard = await self.controller.batch(step, version, 0, 1)
        if shard is None:
            return None
        self.bus.publish(version + 1)
        await self.controller.learned(step, {"policy/kl": 0.0})
        position = shard.position
        return [number for number in range(position.watermark + 10) if number in position]


@pytest.fixture
def stage(
    monkeypatch: pytest.MonkeyPatch, samples: list[Sample], make_episode: Callable[..., Episode]
) -> Callable[..., Stage]:
    monkeypatch.setattr("awares_platform.grpo.controller._RESTART_PAUSE_S", 0.0)
    return lambda **settings: Stage(samples, make_episode, **settings)


def play(scene: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await scene

    asyncio.run(bounded())


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def test_rollouts_run_ahead_by_the_bound_and_no_further(stage: Callable[..., Stage]) -> None:
    async def scene() -> None:
        acted = stage()
        running = asyncio.create_task(acted.controller.run())
        await asyncio.sleep(0.05)
        # Without a learner no version is known to be current.
        assert acted.played() == []
        await acted.controller.attach(0, Position())
        await asyncio.sleep(0.1)
        assert acted.played() == [0, 1, 2, 3]  # bound 1: this batch and one more
        assert await acted.step(0, 0) == [0, 1]
        await asyncio.sleep(0.1)
        assert acted.played() == [0, 1, 2, 3, 4, 5]
        assert await acted.step(1, 1) == [0, 1, 2, 3]
        await acted.controller.close()
        await running

    play(scene())


def test_a_dead_actors_prompts_are_played_by_its_successor(stage: Callable[..., Stage]) -> None:
    async def scene() -> None:
        acted = stage()
        acted.dies_at = [1]
        running = asyncio.create_task(acted.controller.run())
        await acted.controller.attach(0, Position())
        assert await acted.step(0, 0) == [0, 1]
        assert await acted.step(1, 1) == [0, 1, 2, 3]
        await acted.controller.close()
        await running
        assert [line for line in acted.log if "1" == line.split()[-1]] == [
            "actor0 plays 1",
            "actor1 plays 1",
        ]
        assert acted.log.index("kill actor0") < acted.log.index("start actor1")
        assert sorted(group.prompt.number for group in acted.journal.groups)[:4] == [0, 1, 2, 3]

    play(scene())


def test_too_many_deaths_stop_the_run(stage: Callable[..., Stage]) -> None:
    async def scene() -> None:
        acted = stage(actor_restarts=1)
        acted.dies_at = [0, 0]
        running = asyncio.create_task(acted.controller.run())
        await acted.controller.attach(0, Position())
        assert await acted.step(0, 0) is None
        with pytest.raises(LaunchError, match="grpo.actor_restarts"):
            await running
        assert await acted.controller.record() is None

    play(scene())


def test_a_canary_mismatch_stops_the_learner_and_is_raised(stage: Callable[..., Stage]) -> None:
    async def scene() -> None:
        acted = stage()
        acted.mismatch_at = 2
        running = asyncio.create_task(acted.controller.run())
        await acted.controller.attach(0, Position())
        assert await acted.step(0, 0) == [0, 1]
        await acted.step(1, 1)  # publishes version 2
        assert await acted.step(2, 2) is None
        with pytest.raises(ValueError, match="canary of version 2"):
            await running

    play(scene())


def test_a_learner_that_resumes_gets_what_the_dead_one_held(stage: Callable[..., Stage]) -> None:
    async def scene() -> None:
        acted = stage(staleness_bound=3)
        running = asyncio.create_task(acted.controller.run())
        await acted.controller.attach(0, Position())
        first = await acted.controller.batch(0, 0, 0, 1)
        assert first is not None and first.position == Position(2)
        acted.bus.publish(1)
        await acted.controller.attach(1, Position())  # killed before its first checkpoint
        again = await acted.controller.batch(0, 1, 0, 1)
        assert again is not None and again.position == Position(2)
        assert again.minibatches == first.minibatches
        await acted.controller.close()
        await running
        assert sorted(acted.played()) == sorted(set(acted.played()))  # nothing was played twice

    play(scene())


def test_a_group_that_finishes_while_the_journal_is_read_is_kept(
    stage: Callable[..., Stage],
) -> None:
    async def scene() -> None:
        journal = SlowJournal()
        journal.may_return.set()
        acted = stage(staleness_bound=3, journal=journal)
        running = asyncio.create_task(acted.controller.run())
        await acted.controller.attach(0, Position())
        journal.may_return.clear()
        journal.reading.clear()
        attaching = asyncio.create_task(acted.controller.attach(0, Position()))
        await asyncio.to_thread(journal.reading.wait, 10)
        await until(lambda: acted.finished == 8)  # all that bound 3 allows finish during the read
        journal.may_return.set()
        await attaching
        assert await acted.step(0, 0) == [0, 1]
        assert await acted.step(1, 1) == [0, 1, 2, 3]
        await acted.controller.close()
        await running
        assert sorted(acted.played()) == sorted(set(acted.played()))
        written = sorted(group.prompt.number for group in journal.groups)
        assert written == list(range(len(written))) and len(written) >= 8

    play(scene())


def test_no_group_starts_before_the_journal_of_the_last_job_is_read(
    stage: Callable[..., Stage], make_group: Callable[..., Group], samples: list[Sample]
) -> None:
    async def scene() -> None:
        prompts = Prompts(samples, 0)
        journal = SlowJournal([make_group(prompts[number]) for number in range(3)])
        acted = stage(journal=journal)
        running = asyncio.create_task(acted.controller.run())
        await until(lambda: "start actor0" in acted.log)
        attaching = asyncio.create_task(acted.controller.attach(0, Position()))
        await asyncio.to_thread(journal.reading.wait, 10)
        await asyncio.sleep(0.05)
        assert acted.played() == []
        journal.may_return.set()
        await attaching
        assert await acted.step(0, 0) == [0, 1]
        await until(lambda: len(acted.played()) == 3)
        assert acted.played() == [3, 4, 5]  # the bound allows one batch beyond the next
        await acted.controller.close()
        await running

    play(scene())


def test_a_waiting_batch_of_a_dead_learner_takes_nothing(stage: Callable[..., Stage]) -> None:
    async def scene() -> None:
        acted = stage()
        await acted.controller.attach(0, Position())
        orphan = asyncio.create_task(acted.controller.batch(0, 0, 0, 1))
        await asyncio.sleep(0.01)
        await acted.controller.attach(1, Position())
        assert await orphan is None
        running = asyncio.create_task(acted.controller.run())
        acted.bus.publish(1)
        assert await acted.step(0, 1) == [0, 1]
        await acted.controller.close()
        await running

    play(scene())


def test_all_ranks_get_shares_of_one_batch(stage: Callable[..., Stage]) -> None:
    async def scene() -> None:
        acted = stage()
        running = asyncio.create_task(acted.controller.run())
        await acted.controller.attach(0, Position())
        first, second = await asyncio.gather(
            *(acted.controller.batch(0, 0, rank, 2) for rank in range(2))
        )
        assert first is not None and second is not None
        # All four episodes are equal, so there is one sequence. The second rank gets a filler.
        chunks = [shard.minibatches[0].passes for shard in (first, second)]
        assert [[(len(item.episodes), item.filler) for item in chunk] for (chunk,) in chunks] == [
            [(4, False)],
            [(1, True)],
        ]
        assert first.position == second.position == Position(2)
        await acted.controller.close()
        await running

    play(scene())


def test_groups_that_all_fail_stop_the_run_with_their_cause(stage: Callable[..., Stage]) -> None:
    async def scene() -> None:
        acted = stage()
        acted.outcome = Outcome.FAILED
        running = asyncio.create_task(acted.controller.run())
        await acted.controller.attach(0, Position())
        assert await acted.step(0, 0) is None
        with pytest.raises(LaunchError, match="4 groups in a row"):
            await running

    play(scene())


def test_no_batch_in_time_stops_the_run(stage: Callable[..., Stage]) -> None:
    async def scene() -> None:
        acted = stage(batch_timeout_s=0.05)
        acted.bus.head = -1  # nothing to load: the actors wait
        running = asyncio.create_task(acted.controller.run())
        await acted.controller.attach(0, Position())
        assert await acted.step(0, 0) is None
        with pytest.raises(LaunchError, match="0 of 2 groups ready"):
            await running

    play(scene())


def test_finished_groups_are_in_the_journal_before_their_batch_is_handed_out(
    stage: Callable[..., Stage],
) -> None:
    async def scene() -> None:
        acted = stage()
        running = asyncio.create_task(acted.controller.run())
        await acted.controller.attach(0, Position())
        await acted.controller.batch(0, 0, 0, 1)
        assert {0, 1} <= {group.prompt.number for group in acted.journal.groups}
        await acted.controller.close()
        await running

    play(scene())
