"""Defines the interface through which the controller uses a rollout actor."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from awares.episode import Episode
from awares.sample import Sample
from awares_platform.engine.follow import Loaded, Missed
from awares_platform.grpo.group import GroupRollout, Prompt
from awares_platform.method.play import Played


class ActorLost(Exception):
    """The actor has failed and must be replaced. Its groups in flight are lost."""


class ActorReclaimed(ActorLost):
    """The cloud has taken back the actor's node, after a notice. This is not a failure."""


class ActorReleased(ActorLost):
    """The run wants fewer actors. This is not a failure."""


class Actor(Protocol):
    """The interface through which the controller uses a rollout actor.

    If the actor must be replaced, every method except `announce` and `kill` raises ActorLost.
    """

    async def ping(self) -> None:
        """Return once the actor's process has answered, and its engine too if the engine runs.

        The call first waits until Ray has placed the actor on a node.
        """
        ...

    async def start(self) -> str:
        """Start the actor, and return the id of its node when its engine is ready."""
        ...

    def follow(self) -> AsyncIterator[Loaded | Missed]:
        """Yield Loaded for each version that the actor loads, and Missed for a failed attempt."""
        ...

    async def rollout(self, prompt: Prompt, begun: Sequence[Episode] = ()) -> GroupRollout:
        """Roll out a group of episodes of `prompt`. A failed episode raises no error.

        `begun` holds the episodes of an earlier actor; this actor continues the unfinished ones.
        After `drain`, the result may be unfinished.
        """
        ...

    async def drain(self) -> None:
        """Let every rollout return now, with the tokens that it has sampled by then."""
        ...

    def validate(
        self, version: int, samples: Sequence[Sample]
    ) -> AsyncIterator[Loaded | tuple[Played, ...]]:
        """Answer `samples` with the weights of exactly `version`, which must be published.

        Yield Loaded after a load, then the episodes in the order of `samples`. Raises WeightsError
        if the load fails, and EngineFailure if too many episodes fail.
        """
        ...

    def announce(self) -> None:
        """Tell the actor that the store has new weights, without waiting for an answer."""
        ...

    def kill(self) -> None:
        """End the actor's process if it still runs."""
        ...


async def rolled_out(
    actor: Actor, prompt: Prompt, begun: Sequence[Episode], slots: asyncio.Semaphore
) -> GroupRollout:
    """Let the actor roll out `prompt`, release a slot of `slots`, and return the rollout.

    With the free slot, the actor can play another group while the caller scores this one.
    """
    try:
        return await actor.rollout(prompt, begun)
    finally:
        slots.release()
