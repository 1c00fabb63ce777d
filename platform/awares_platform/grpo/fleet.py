"""Starts the rollout actors, watches them, and replaces each one that is lost.

tend:  spawn --> wait for a node --> start --> drive || ping --> kill --> spawn ...
         ^       (without limit)                   the actor dies, hangs or is released
         +-- waits while the run wants no actor with this index (see `resize`)
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection

from awares_platform.config.grpo import GrpoConfig
from awares_platform.grpo.actor import Actor, ActorLost, ActorReclaimed, ActorReleased
from awares_platform.grpo.step_metrics import StepMetrics
from awares_platform.runtime.watch import ENGINE_MARGIN, FailureRate, PartLost, guarded, watch
from awares_platform.store.errors import LaunchError

log = logging.getLogger(__name__)

Drive = Callable[[Actor, int, str], Awaitable[None]]
_RESTART_PAUSE_S = 1.0


class Fleet:
    """The rollout actors of a run.

    `wanted` holds the indices of the actors that the run wants. `unplaced` holds the indices of
    the actors that wait for a node. `ready` holds the indices of the actors whose engine runs.
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
        self._losses, self._most = FailureRate(settings.actor_restarts), settings.rollout_actors
        self.unplaced: set[int] = set()
        self.ready: set[int] = set()
        self.wanted = set(range(settings.rollout_actors))
        self._resized = asyncio.Condition()

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
            await self._until(lambda: index in self.wanted)
            actor = self._spawn(index)
            try:
                await guarded(self._place(actor, index), self._released(index))
                await guarded(self._run(actor, index, drive), self._watch(actor))
            except ActorReleased:
                self._metrics.gone(index)
                continue
            except ActorLost as error:
                self._count(index, error)
            finally:
                self.ready.discard(index)
                actor.kill()
            await asyncio.sleep(_RESTART_PAUSE_S)

    async def resize(self, actors: int, draining: Collection[int] = ()) -> set[int]:
        """Set the number of wanted actors. Return the indices of the ready actors to drain.

        The actors `draining` are released first, because they leave anyway. Actors that are not
        ready come next. They need no draining, as they have no groups.
        """

        def rank(index: int) -> tuple[bool, bool, bool]:
            return index not in self.wanted, index in draining, index not in self.ready

        self.wanted = {*sorted(range(self._most), key=rank)[:actors]}
        async with self._resized:
            self._resized.notify_all()
        return self.ready - self.wanted

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with self._resized:
            await self._resized.wait_for(condition)

    async def _released(self, index: int) -> None:
        """Raise ActorReleased once the run does not want the actor."""
        await self._until(lambda: index not in self.wanted)
        self._require_wanted(index)

    def _require_wanted(self, index: int) -> None:
        if index not in self.wanted:
            raise ActorReleased(f"actor {index} is released")

    async def _place(self, actor: Actor, index: int) -> None:
        """Wait until the actor has a node. Nodes may be missing for hours, so no limit applies."""
        self.unplaced.add(index)
        try:
            await actor.ping()
        finally:
            self.unplaced.discard(index)

    async def _run(self, actor: Actor, index: int, drive: Drive) -> None:
        node = await guarded(actor.start(), self._released(index))
        # `guarded` returns a few turns of the event loop after `start`. The run may release the
        # actor in between.
        self._require_wanted(index)
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
