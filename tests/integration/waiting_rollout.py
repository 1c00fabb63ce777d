"""A rollout actor that waits instead of generating. A test runs it in a real Ray process.

Ray imports this module in the actor's process.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import ray

from awares.episode import Episode, StopReason, Turn
from awares.sample import Sample
from awares.view import View
from awares_platform.config import PlatformConfig
from awares_platform.engine.follow import Loaded
from awares_platform.engine.load import LoadReport, Prefetched
from awares_platform.grpo.group import GroupRollout, Prompt
from awares_platform.method.play import Played
from awares_platform.store import ObjectStore

HEAD, LENGTH, TOKEN_S = "head", 20, 0.05
"""The key with the learner's version, the tokens of an episode, and the seconds per token."""


EMPTY = Turn(
    context_ids=(1, 9, 2),
    views=(View(),),
    sampled_ids=(),
    logprobs=(),
    versions=(),
    text="",
    crops=(),
    stop=None,
)


class WaitingRollout:
    """Has the methods of rollout.RolloutActor, without an engine.

    Each token's id is the process id of the actor that has sampled the token.
    """

    def __init__(self, config: PlatformConfig, index: int) -> None:
        self._store, self._size = ObjectStore.from_config(config.store), config.grpo.group_size
        self._version, self._draining = 0, False

    async def ping(self) -> None:
        """Return at once, because the actor has no engine that could hang."""

    async def start(self) -> str:
        return ray.get_runtime_context().get_node_id()

    async def follow(self) -> AsyncIterator[Loaded]:
        held = -1
        while True:
            self._version = int(await asyncio.to_thread(self._store.get, HEAD))
            if self._version != held:
                held = self._version
                prefetched = Prefetched(1, 0, 0, 0.0, 0.0, 0.0)
                yield Loaded(LoadReport(held, prefetched, 0.0, 0.0, None), 0.1)
            await asyncio.sleep(0.1)

    async def announce(self) -> None:
        """Do nothing, because `follow` reads the version all the time."""

    async def drain(self) -> None:
        self._draining = True

    async def rollout(self, prompt: Prompt, begun: Sequence[Episode] = ()) -> GroupRollout:
        started = time.time()
        turn = begun[0].turns[0] if begun else EMPTY
        while len(turn.sampled_ids) < LENGTH and not self._draining:
            await asyncio.sleep(TOKEN_S)
            turn = _longer(turn, self._version)
        return GroupRollout((_episode(turn),) * self._size, started, time.time())

    async def validate(
        self, version: int, samples: Sequence[Sample]
    ) -> AsyncIterator[tuple[Played, ...]]:
        """Answer nothing, because the test validates no version."""
        yield ()


def _longer(turn: Turn, version: int) -> Turn:
    return replace(
        turn,
        sampled_ids=(*turn.sampled_ids, os.getpid()),
        logprobs=(*turn.logprobs, -0.5),
        versions=(*turn.versions, version),
    )


def _episode(turn: Turn) -> Episode:
    stop = StopReason.UNFINISHED if len(turn.sampled_ids) < LENGTH else StopReason.ANSWER
    return Episode(
        sample_id="s0",
        image="ab" * 32,
        image_size=(112, 112),
        turns=(replace(turn, stop=stop, text="7"),),
        answer="7" if stop is StopReason.ANSWER else None,
        stop=stop,
        visual_tokens=4,
        rtr_token=0.25,
        rtr_pixel=0.25,
    )
