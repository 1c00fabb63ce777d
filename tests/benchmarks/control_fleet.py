"""Simulates rollout actors and reward workers on the event loop of a benchmark."""

import asyncio
import pickle
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from itertools import count

from awares.episode import Episode, StopReason, Turn
from awares.reward import RewardValue
from awares.sample import Label, Sample
from awares.view import View
from awares_platform.config.grpo import GrpoConfig
from awares_platform.engine.follow import Loaded
from awares_platform.engine.load import LoadReport, Prefetched
from awares_platform.grpo.actor import Actor
from awares_platform.grpo.group import GroupRollout, Prompt
from awares_platform.grpo.rewarding import Asked, RewardPool
from awares_platform.method.play import Played

PROMPT, TURN = 300, 40
"""The number of context ids of an episode's first turn, and the number of sampled ids of a turn."""
SPARE = 1.33
"""How many groups all actors could generate while the learner trains one group."""
MARK = "distinct"
"""The beginning of each answer in a cached rollout. `Fleet.rollout` replaces it by a new number."""
LOAD_S = 0.5
"""The longest time in seconds that an actor takes to load a version."""


def samples() -> list[Sample]:
    return [
        Sample(f"s{number}", "ab" * 32, f"question {number}?", f"{number}", label=Label.LR)
        for number in range(50_000)
    ]


def episode(version: int, number: int) -> Episode:
    """Return an episode of two turns, whose tokens have the weight version `version`.

    Each `number` gives other tokens and another answer, which begins with MARK.
    """
    drawn = random.Random(number)
    ids = tuple(drawn.randrange(150_000) for _ in range(PROMPT + TURN))
    logprobs = tuple(-drawn.random() for _ in range(TURN))
    sampled, versions = ids[-TURN:], (version,) * TURN
    asks = Turn(
        context_ids=ids[:PROMPT],
        views=(View(),),
        sampled_ids=sampled,
        logprobs=logprobs,
        versions=versions,
        text="GET_CROPS: ['0']",
        crops=("0",),
        stop=None,
        area=0.25,
    )
    answers = replace(
        asks,
        context_ids=ids[:20],
        views=(View((0, 0, 850, 1100)),),
        text="7",
        crops=(),
        stop=StopReason.ANSWER,
        area=0.0,
    )
    return Episode(
        sample_id="s0",
        image="ab" * 32,
        image_size=(1700, 2200),
        turns=(asks, answers),
        answer=f"{MARK} {number}",
        stop=StopReason.ANSWER,
        visual_tokens=1000,
        rtr_token=0.5,
        rtr_pixel=0.5,
    )


class Fleet:
    """The simulated actors of a run.

    `rate` is the number of groups that the learner trains per second. The actors can play SPARE
    times as many groups.
    """

    def __init__(self, settings: GrpoConfig, rate: float, reward_s: float) -> None:
        self.settings, self.reward_s, self.rate = settings, reward_s, rate
        slots = settings.rollout_actors * settings.groups_in_flight
        room = settings.groups_per_step * settings.staleness_bound
        self.play_s = min(slots, room) / (rate * SPARE)
        # The CPU seconds of the simulation itself.
        self.spent_s = 0.0
        self.head = 0
        self.published = asyncio.Event()
        self._rollouts: dict[int, bytes] = {}
        self._rewards: dict[int, bytes] = {}
        self._groups = count()

    def publish(self, version: int) -> None:
        self.head = version
        self.published.set()
        self.published = asyncio.Event()

    def rollout(self, version: int) -> bytes:
        """Return a pickled rollout whose tokens have this version. All answers are distinct."""
        if version not in self._rollouts:
            begun = time.thread_time()
            played = tuple(episode(version, number) for number in range(self.settings.group_size))
            self._rollouts[version] = pickle.dumps(GroupRollout(played, 0.0, 1.0), 5)
            self.spent_s += time.thread_time() - begun
        number = f"{next(self._groups):0{len(MARK)}d}"
        return self._rollouts[version].replace(MARK.encode(), number.encode())

    def rewards(self, groups: int) -> bytes:
        """Return the pickled rewards of `groups` groups."""
        if groups not in self._rewards:
            found = [
                [
                    RewardValue(number / 7, {"answer": 1.0, "cost": 0.25})
                    for number in range(self.settings.group_size)
                ]
                for _ in range(groups)
            ]
            self._rewards[groups] = pickle.dumps(found, 5)
        return self._rewards[groups]

    def spawn(self, index: int) -> Actor:
        return SimulatedActor(self, random.Random(index))

    def pool(self, stop: Callable[[Exception], Awaitable[None]]) -> RewardPool:
        return RewardPool(self.settings, lambda _: SimulatedWorker(self), stop)


class SimulatedActor:
    """A rollout actor (`awares_platform.grpo.actor.Actor`) that sleeps instead of sampling."""

    def __init__(self, fleet: Fleet, drawn: random.Random) -> None:
        self._fleet, self._drawn, self._version = fleet, drawn, -1

    async def ping(self) -> None:
        """Return at once, because a simulated engine never hangs."""

    async def start(self) -> str:
        await asyncio.sleep(self._drawn.random() * LOAD_S)
        return "node"

    async def follow(self) -> AsyncIterator[Loaded]:
        while True:
            published = self._fleet.published
            if self._version != self._fleet.head:
                self._version = self._fleet.head
                yield Loaded(
                    LoadReport(self._version, Prefetched(1, 0, 0, 0.0, 0.0, 0.0), 0.0, 0.0, None),
                    0.1,
                )
            await published.wait()
            await asyncio.sleep(self._drawn.random() * LOAD_S)

    async def drain(self) -> None:
        """Do nothing, because the benchmark drains no actor."""

    async def rollout(self, prompt: Prompt, begun: Sequence[Episode] = ()) -> GroupRollout:
        version = self._version
        await asyncio.sleep(self._fleet.play_s * (0.5 + self._drawn.random()))
        return pickle.loads(self._fleet.rollout(version))

    async def validate(
        self, version: int, samples: Sequence[Sample]
    ) -> AsyncIterator[tuple[Played, ...]]:
        """Answer nothing, because the benchmark validates no version."""
        yield ()

    def announce(self) -> None:
        """Do nothing, because `follow` waits for `Fleet.publish`."""

    def kill(self) -> None:
        """Do nothing, because a simulated actor has no process."""


class SimulatedWorker:
    """A reward worker (`rewarding.RewardWorker`) that sleeps instead of computing rewards."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    async def start(self) -> None:
        """Do nothing, because a simulated worker has no process."""

    async def rewards(self, asked: Sequence[Asked]) -> list[list[RewardValue]]:
        pickle.dumps(asked, 5)
        await asyncio.sleep(self._fleet.reward_s * len(asked))
        return pickle.loads(self._fleet.rewards(len(asked)))

    def kill(self) -> None:
        """Do nothing, because a simulated worker has no process."""
