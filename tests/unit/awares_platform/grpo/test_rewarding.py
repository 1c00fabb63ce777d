"""Tests that the reward pool scores as one process would, and survives the loss of its workers."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

import pytest

from awares.episode import Episode
from awares.reward import CropReward, RewardValue
from awares.sample import Label, Sample
from awares_platform.config.grpo import GrpoConfig
from awares_platform.grpo import rewarding
from awares_platform.grpo.group import Group, GroupRollout, Outcome, Prompt
from awares_platform.grpo.rewarding import Asked, RewardPool, WorkerLost, WorkerReclaimed
from awares_platform.grpo.scoring import Scoring, values
from awares_platform.store.errors import LaunchError
from tests.unit.awares_platform.grpo.stage import play, until

REWARD = CropReward("anls")


class FakeWorker:
    """A reward worker in this process. `script` has an error, or None, for each call."""

    def __init__(self, script: list[Exception | None], calls: list[int]) -> None:
        self.script, self.calls = script, calls
        self.killed = False

    async def start(self) -> None:
        await asyncio.sleep(0)

    async def rewards(self, asked: Sequence[Asked]) -> list[list[RewardValue]]:
        self.calls.append(len(asked))
        await asyncio.sleep(0.001)
        assert not self.killed
        if self.script and (error := self.script.pop(0)) is not None:
            raise error
        return [values(REWARD, sample, episodes) for sample, episodes in asked]

    def kill(self) -> None:
        self.killed = True


class Hanging(FakeWorker):
    async def rewards(self, asked: Sequence[Asked]) -> list[list[RewardValue]]:
        await asyncio.Event().wait()
        raise AssertionError("the event is never set")


class Unstartable(FakeWorker):
    async def start(self) -> None:
        raise WorkerLost("no such image")


class Placed(FakeWorker):
    """A reward worker that starts when the test sets `node`."""

    node: asyncio.Event

    async def start(self) -> None:
        await self.node.wait()


class Arena:
    """A reward pool whose workers share one script.

    `stopped` lists the errors with which the pool stopped the run.
    """

    def __init__(
        self, *script: Exception | None, kinds: Sequence[type[FakeWorker]] = (), **settings: float
    ) -> None:
        self.settings = GrpoConfig.model_validate({"reward_workers": 1, **settings})
        self.script, self.kinds = list(script), list(kinds)
        self.workers: list[FakeWorker] = []
        self.calls: list[int] = []
        self.stopped: list[Exception] = []
        self.pool = RewardPool(self.settings, self.spawn, self.stop)

    def spawn(self, index: int) -> FakeWorker:
        kind = self.kinds.pop(0) if self.kinds else FakeWorker
        self.workers.append(kind(self.script, self.calls))
        return self.workers[-1]

    async def stop(self, error: Exception) -> None:
        self.stopped.append(error)


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewarding, "_RESTART_PAUSE_S", 0.0)


@pytest.fixture
def asked(make_episode: Callable[..., Episode]) -> list[tuple[Prompt, GroupRollout]]:
    """Return 40 prompts with rollouts of four distinct answers each."""
    found = []
    for number in range(40):
        sample = Sample(f"s{number}", "ab" * 32, "digits?", f"{number}{number}7", label=Label.HR)
        answers = (f"{number}{number}7", f"{number}{number}", f"{number}17", "none")
        played = tuple(make_episode(answer=answer) for answer in answers)
        found.append((Prompt(number, 0, sample), GroupRollout(played, 0.0, 1.5)))
    return found


async def scored(arena: Arena, asked: list[tuple[Prompt, GroupRollout]]) -> list[Group]:
    async with arena.pool as score:
        return await asyncio.gather(*(score(*one) for one in asked))


@pytest.mark.parametrize("workers", [1, 3])
def test_the_pool_scores_as_one_process_does(
    asked: list[tuple[Prompt, GroupRollout]], workers: int
) -> None:
    async def scene() -> None:
        arena = Arena(reward_workers=workers)
        alone = Scoring(REWARD, arena.settings)
        assert await scored(arena, asked) == [alone(*one) for one in asked]
        # A call has at most 16 groups. With three workers, it has at most a third of the 40 groups,
        # rounded up to 14.
        assert max(arena.calls) == (16 if workers == 1 else 14) and sum(arena.calls) == 40
        assert len(arena.workers) == workers and not arena.stopped
        assert all(worker.killed for worker in arena.workers)

    play(scene())


def test_a_lost_worker_costs_a_retry(asked: list[tuple[Prompt, GroupRollout]]) -> None:
    async def scene() -> None:
        arena = Arena(None, WorkerLost("its node is gone"))
        alone = Scoring(REWARD, arena.settings)
        assert await scored(arena, asked) == [alone(*one) for one in asked]
        # The second call loses its worker, so each of its 16 groups gets a call of its own.
        assert arena.calls == [16, 16, *[1] * 16, 8]
        assert len(arena.workers) == 2 and not arena.stopped

    play(scene())


def test_a_worker_that_gives_no_answer_is_replaced(
    asked: list[tuple[Prompt, GroupRollout]],
) -> None:
    async def scene() -> None:
        arena = Arena(kinds=[Hanging], reward_timeout_s=0.05)
        assert len(await scored(arena, asked[:2])) == 2
        assert [worker.killed for worker in arena.workers] == [True, True] and not arena.stopped

    play(scene())


@pytest.mark.parametrize(("kind", "stops"), [(WorkerLost, True), (WorkerReclaimed, False)])
def test_more_lost_workers_than_are_accepted_stop_the_run(
    asked: list[tuple[Prompt, GroupRollout]], kind: type[WorkerLost], stops: bool
) -> None:
    """Each lost worker scores another group, so that no group is the cause.

    A worker whose node the cloud takes back does not count.
    """

    async def scene() -> None:
        arena = Arena(*[None, kind("the node")] * 4, actor_restarts=2)
        async with arena.pool as score:
            for one in asked[:5]:
                with suppress(LaunchError):
                    await score(*one)
        found = [str(error) for error in arena.stopped]
        assert len(arena.workers) == (3 if stops else 5) and len(found) == stops
        assert all("3 times within an hour (last: the node)" in text for text in found)

    play(scene())


def test_a_group_that_kills_its_workers_stops_the_run(
    asked: list[tuple[Prompt, GroupRollout]],
) -> None:
    async def scene() -> None:
        arena = Arena(*[WorkerLost("out of memory")] * 3)
        with pytest.raises(LaunchError, match="3 reward workers were lost with the episodes of s0"):
            await scored(arena, asked[:1])
        assert len(arena.stopped) == 1
        with pytest.raises(LaunchError, match="out of memory"):
            await arena.pool(*asked[1])

    play(scene())


def test_an_error_of_the_reward_stops_the_run(asked: list[tuple[Prompt, GroupRollout]]) -> None:
    async def scene() -> None:
        arena = Arena(KeyError("truth"))
        async with arena.pool as score:
            results = await asyncio.gather(*(score(*one) for one in asked), return_exceptions=True)
        # Groups that no worker has received yet get the error, too. None of them waits for ever.
        assert {type(result) for result in results} == {KeyError}
        assert [str(error) for error in arena.stopped] == ["'truth'"]

    play(scene())


def test_workers_that_never_start_stop_the_run(asked: list[tuple[Prompt, GroupRollout]]) -> None:
    async def scene() -> None:
        arena = Arena(kinds=[Unstartable] * 3)
        with pytest.raises(LaunchError, match=r"did not start 3 times in a row.*no such image"):
            await scored(arena, asked[:1])
        assert len(arena.stopped) == 1

    play(scene())


def test_the_pool_is_ready_while_a_worker_runs(asked: list[tuple[Prompt, GroupRollout]]) -> None:
    async def scene() -> None:
        Placed.node = asyncio.Event()
        arena = Arena(WorkerLost("its node is gone"), kinds=[FakeWorker, Placed])
        assert not arena.pool.ready
        async with arena.pool as score:
            scoring = asyncio.ensure_future(score(*asked[0]))
            await until(lambda: arena.pool.ready)
            await until(lambda: len(arena.workers) == 2)
            assert not arena.pool.ready and not scoring.done()
            Placed.node.set()
            await scoring
            assert arena.pool.ready

    play(scene())


def test_a_group_whose_actor_is_lost_is_not_scored(
    asked: list[tuple[Prompt, GroupRollout]],
) -> None:
    async def scene() -> None:
        arena = Arena()
        async with arena.pool as score:
            tasks = [asyncio.ensure_future(score(*one)) for one in asked[:2]]
            await asyncio.sleep(0)
            tasks[0].cancel()
            group = await tasks[1]
        assert group.prompt.number == 1 and arena.calls == [1]

    play(scene())


def test_a_prompt_that_cannot_be_played_needs_no_worker(
    asked: list[tuple[Prompt, GroupRollout]],
) -> None:
    async def scene() -> None:
        arena = Arena()
        prompt, rollout = asked[0]
        fault = GroupRollout(rollout.episodes[:1], 0.0, 1.0, fault="shorten the question")
        group = await arena.pool(prompt, fault)
        assert group.outcome is Outcome.UNPLAYABLE and not arena.calls

    play(scene())
