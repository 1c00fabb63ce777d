"""Starts the rollout actors, watches them, and replaces each one that is lost.

tend:  spawn --> wait for a node --> start --> drive || ping --> kill --> spawn ...
                 (without limit)                   the actor dies or hangs
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from awares_platform.config.grpo import GrpoConfig
from awares_platform.grpo.actor import Actor, ActorLost, ActorReclaimed
from awares_platform.grpo.step_metrics import StepMetrics
from awares_platform.runtime.watch import ENGINE_MARGIN, FailureRate, PartLost, guarded, watch
from awares_platform.store.errors import LaunchError

log = logging.getLogger(__name__)

Drive = Callable[[Actor, int, str], Awaitable[None]]
_RESTART_PAUSE_S = 1.0


class Fleet:
    """The rollout actors of a run.

    `unplaced` holds the indices of the actors that wait for a node. `ready` holds the indices of
    the actors whose engine runs.
    """

    def __init__(
        self,
        settings: GrpoConfig,
        spawn: Callable[[int], Actor],
        metrics: StepMetrics,
        hang_timeout_s: float,
    ) -> None:
        self._spawn, self._metrics = spawn, metrics
        self._hang_timeout_s = hang_timeout_s
        self._losses = FailureRate(settings.actor_restarts)
        self.unplaced: set[int] = set()
        self.ready: set[int] = set()

    @property
    def losses(self) -> int:
        """The number of actors lost within the last hour."""
        return self._losses.recent

    async def tend(self, index: int, drive: Drive) -> None:
        """Run the actor with this index, and replace the actor each time it is lost.

        `drive` uses the actor. Raises LaunchError after more than grpo.actor_restarts losses within
        an hour. Raises every error of the actor or of `drive` except ActorLost.
        """
        while True:
            actor = self._spawn(index)
            try:
                await self._place(actor, index)
                await guarded(self._run(actor, index, drive), self._watch(actor))
            except ActorLost as error:
                self._count(index, error)
            finally:
                self.ready.discard(index)
                actor.kill()
            await asyncio.sleep(_RESTART_PAUSE_S)

    async def _place(self, actor: Actor, index: int) -> None:
        """Wait until the actor has a node. Nodes may be missing for hours, so no limit applies."""
        self.unplaced.add(index)
        try:
            await actor.ping()
        finally:
            self.unplaced.discard(index)

    async def _run(self, actor: Actor, index: int, drive: Drive) -> None:
        node = await actor.start()
        self.ready.add(index)
        await drive(actor, index, node)

    async def _watch(self, actor: Actor) -> None:
        """Raise ActorLost when the actor gives no answer in time."""
        try:
            await watch("the actor", actor.ping, self._hang_timeout_s * ENGINE_MARGIN)
        except PartLost as error:
            raise ActorLost(str(error)) from None

    def _count(self, index: int, error: ActorLost) -> None:
        too_many = not isinstance(error, ActorReclaimed) and self._losses.count()
        self._metrics.restarted(index)
        log.warning(
            "rollout actor %d is gone (%s); it is replaced, and its prompts are issued again",
            index,
            error,
        )
        if too_many:
            raise LaunchError(
                f"rollout actors died {self._losses.recent} times within an hour (last: {error}); "
                "see Ray's logs for the cause, or raise grpo.actor_restarts"
            ) from error
