"""Defines a fake rollout actor without an engine, and a fake store of weight versions.

The fake actor loads the versions that a test publishes to the fake store, a Bus.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

from awares.episode import Episode, StopReason
from awares.sample import Sample
from awares_platform.engine.follow import Loaded
from awares_platform.engine.load import LoadReport, Prefetched
from awares_platform.grpo.actor import ActorLost
from awares_platform.grpo.group import GroupRollout, Prompt
from awares_platform.method.play import Played


class Bus:
    """A stand-in for the store to which the learner publishes weights.

    A new version wakes the waiting actors at once.
    """

    def __init__(self) -> None:
        self.head = 0
        self.changed = asyncio.Event()

    def publish(self, version: int) -> None:
        self.head = version
        self.changed.set()
        self.changed = asyncio.Event()


class FakeActor:
    """A fake rollout actor, which plays every prompt with the weight version that it has loaded.

    `dies_at` is the number of the prompt during which the actor dies. `placed` is set once the
    actor has a node.
    """

    def __init__(
        self,
        bus: Bus,
        episode: Callable[..., Episode],
        log: list[str],
        name: str,
        dies_at: int | None = None,
        placed: asyncio.Event | None = None,
    ) -> None:
        self.bus, self.episode, self.log, self.name, self.dies_at = bus, episode, log, name, dies_at
        self.version = -1
        self.dead = asyncio.Event()
        # The version whose load raises an error, as after a canary mismatch.
        self.mismatch_at: int | None = None
        # The number of the prompt at which the actor begins to hang.
        self.frozen_at: int | None = None
        # The version during whose validation the actor dies.
        self.dies_validating: int | None = None
        # The errors that the next validations raise, one each.
        self.validation_errors: list[Exception] = []
        # The number of the first prompt whose `rollout` waits for `drain`, and then returns an
        # unfinished group.
        self.slow_from: int | None = None
        self.drained = asyncio.Event()
        # The episodes of earlier actors that this actor has continued, by the prompt's number.
        self.begun: dict[int, tuple[Episode, ...]] = {}
        # The answer of each version to all held-out questions. A version without an entry says "7".
        self.answers: dict[int, str] = {}
        self.placed = placed
        self.running = asyncio.Event()
        self.running.set()

    async def ping(self) -> None:
        if self.placed is not None:
            await self.placed.wait()
        await self.running.wait()

    async def start(self) -> str:
        self.log.append(f"start {self.name}")
        return f"node of {self.name}"

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

    async def drain(self) -> None:
        self.log.append(f"drain {self.name}")
        await self.running.wait()
        self.drained.set()

    async def rollout(self, prompt: Prompt, begun: Sequence[Episode] = ()) -> GroupRollout:
        version = self.version
        self.begun[prompt.number] = tuple(begun)
        self.log.append(f"{self.name} plays {prompt.number}")
        if prompt.number == self.dies_at:
            self.dead.set()
        if prompt.number == self.frozen_at:
            self.running.clear()
        await asyncio.sleep(0.001)
        await self.running.wait()
        if self.dead.is_set():
            raise ActorLost(self.name)
        if self.slow_from is not None and prompt.number >= self.slow_from:
            await self.drained.wait()
            cut = self.episode(version, None, StopReason.UNFINISHED)
            return GroupRollout((self.episode(version), cut), 0.0, 1.0)
        if begun:
            return GroupRollout((begun[0], self.episode(version)), 0.0, 1.0)
        return GroupRollout((self.episode(version), self.episode(version)), 0.0, 1.0)

    async def validate(
        self, version: int, samples: Sequence[Sample]
    ) -> AsyncIterator[tuple[Played, ...]]:
        self.log.append(f"{self.name} validates {version}")
        await asyncio.sleep(0.001)
        if version == self.dies_validating:
            self.dead.set()
            raise ActorLost(self.name)
        if self.validation_errors:
            raise self.validation_errors.pop(0)
        answer = self.answers.get(version, "7")
        yield tuple(Played(one, self.episode(version, answer), 0.0, "") for one in samples)

    def announce(self) -> None:
        self.log.append(f"announce {self.name}")

    def kill(self) -> None:
        self.log.append(f"kill {self.name}")
