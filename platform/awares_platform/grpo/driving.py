"""Uses the running rollout actors: they follow the weights, validate, and roll out groups.

    drive:  follow  ||  validate  ||  issue --> roll --> score --> receive(group)
                                        |         |                    ^
            hand_back --- stops it -----+         +---- unfinished ----+

A drained actor hands back its groups: it stops sampling, and returns the tokens that it has sampled
by then. Another actor, or the restarted job, continues the group from these tokens. If the actor
does not hand back its groups in time, their prompts are issued again without the tokens.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass, field

from awares_platform.config.grpo import GrpoConfig
from awares_platform.engine.follow import Loaded, Missed
from awares_platform.grpo.actor import Actor, ActorLost, rolled_out
from awares_platform.grpo.buffer import EpisodeBuffer
from awares_platform.grpo.group import Group, GroupRollout, Prompt
from awares_platform.grpo.line import Line
from awares_platform.grpo.step_metrics import StepMetrics
from awares_platform.grpo.validation import Validation
from awares_platform.method.play import EngineFailure
from awares_platform.weights import WeightsError

log = logging.getLogger(__name__)

HAND_BACK_S = 15.0
"""The largest number of seconds that a drained actor gets to hand back its groups."""


@dataclass(eq=False, slots=True)
class _Driven:
    """A running actor. `drive` stops using it once the future `ended` has an error.

    `asking` holds the tasks that give work to the actor. `rolls` holds a task for each group that
    the actor rolls out.
    `validating` says whether the actor answers held-out questions now.
    """

    actor: Actor
    node: str
    ended: asyncio.Future[None]
    asking: list[asyncio.Task[None]] = field(default_factory=list)
    rolls: set[asyncio.Task[None]] = field(default_factory=set)
    draining: bool = False
    validating: bool = False


class Driving:
    """The running actors of a controller, by their indices.

    `score` computes the rewards of a rollout. `receive` gets each group, also the unfinished groups
    that drained actors hand back.
    """

    def __init__(
        self,
        settings: GrpoConfig,
        buffer: EpisodeBuffer,
        line: Line,
        validation: Validation,
        metrics: StepMetrics,
        score: Callable[[Prompt, GroupRollout], Awaitable[Group]],
        receive: Callable[[Group], Awaitable[None]],
    ) -> None:
        self._settings, self._buffer, self._line = settings, buffer, line
        self._validation, self._metrics = validation, metrics
        self._score, self._receive = score, receive
        self._driven: dict[int, _Driven] = {}
        # The rollout tasks that have not begun to run.
        self._unstarted: set[asyncio.Task[None] | None] = set()
        self._leaving: set[asyncio.Task[None]] = set()

    @property
    def actors(self) -> list[Actor]:
        """The running actors."""
        return [driven.actor for driven in self._driven.values()]

    @property
    def busy(self) -> int:
        """The number of running actors that have a group or held-out questions."""
        return sum(bool(driven.rolls) or driven.validating for driven in self._driven.values())

    @property
    def draining(self) -> set[int]:
        """The indices of the running actors that hand back their groups and then leave."""
        return {index for index, driven in self._driven.items() if driven.draining}

    async def drive(self, actor: Actor, index: int, node: str) -> None:
        """Use the actor, which runs on the node with the id `node`, until a task fails."""
        driven = _Driven(actor, node, asyncio.get_running_loop().create_future())
        self._driven[index] = driven
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._follow(actor, index))
                driven.asking += [
                    group.create_task(self._validate(driven, index)),
                    group.create_task(self._issue(driven, index, group)),
                ]
                await driven.ended
        except ExceptionGroup as errors:
            fatal = [error for error in errors.exceptions if not isinstance(error, ActorLost)]
            raise (fatal or errors.exceptions)[0] from None
        finally:
            del self._driven[index]
            self._line.gone(index)

    async def _follow(self, actor: Actor, index: int) -> None:
        async for load in actor.follow():
            if isinstance(load, Missed):
                self._metrics.missed(load)
                held = self._line.version(index)
                log.warning("a rollout actor keeps version %d: %s", held, load.reason)
                continue
            self._loaded(index, load)

    def _loaded(self, index: int, load: Loaded) -> None:
        self._metrics.loaded(index, load)
        self._line.loaded(index, load.version)

    async def _validate(self, driven: _Driven, index: int) -> None:
        """Let the actor answer the held-out questions whenever a version must be validated."""
        while True:
            due = await self._validation.next()
            driven.validating = True
            try:
                async for found in driven.actor.validate(due.version, self._validation.samples):
                    if isinstance(found, Loaded):
                        self._loaded(index, found)
                    else:
                        self._validation.deliver(due, found)
            except (EngineFailure, WeightsError) as error:
                await self._validation.failed(due, error)
            except BaseException:
                self._validation.give_back(due)
                raise
            finally:
                driven.validating = False

    async def _issue(self, driven: _Driven, index: int, group: asyncio.TaskGroup) -> None:
        """Start a group whenever the actor has a free slot and the buffer has room."""
        slots = asyncio.Semaphore(self._settings.groups_in_flight)
        while True:
            await slots.acquire()
            prompt = await self._line.prompt(index)
            task = group.create_task(self._roll(driven, prompt, slots))
            self._unstarted.add(task)
            driven.rolls.add(task)
            task.add_done_callback(driven.rolls.discard)
            task.add_done_callback(lambda task, prompt=prompt: self._ended(task, prompt))

    def _ended(self, task: asyncio.Task[None], prompt: Prompt) -> None:
        """Return the prompt to the buffer if the actor was lost before the prompt's task began."""
        if task in self._unstarted:
            self._unstarted.discard(task)
            self._return(prompt)

    def _return(self, prompt: Prompt) -> None:
        self._buffer.reissue(prompt)
        self._line.advance()

    async def _roll(self, driven: _Driven, prompt: Prompt, slots: asyncio.Semaphore) -> None:
        """Roll out one group, free the slot, score the group, and let the controller receive it.

        After an error, return the prompt to the buffer, and raise the error.
        """
        self._unstarted.discard(asyncio.current_task())
        try:
            begun = self._buffer.begun(prompt)
            rollout = await rolled_out(driven.actor, prompt, begun, slots)
            self._metrics.used(rollout.usage)
            if rollout.unfinished and not rollout.sampled:
                self._return(prompt)
                return
            group = (
                Group.unfinished(prompt, rollout)
                if rollout.unfinished
                else await self._score(prompt, rollout)
            )
        except BaseException:
            self._return(prompt)
            raise
        await self._receive(group)

    # -- draining

    async def hand_back(self, within_s: float, indices: Iterable[int] | None = None) -> None:
        """Drain the actors `indices`, or all of them. They get no further work.

        Return once the actors have handed back their groups, and after `within_s` seconds at the
        latest.
        """
        chosen = list(self._driven) if indices is None else indices
        await asyncio.gather(*(self._drain(self._driven[one], within_s) for one in chosen))

    async def _drain(self, driven: _Driven, within_s: float) -> None:
        driven.draining = True
        for task in driven.asking:
            task.cancel()
        try:
            async with asyncio.timeout(within_s):
                await asyncio.gather(*driven.asking, return_exceptions=True)
                await driven.actor.drain()
                await asyncio.gather(*driven.rolls, return_exceptions=True)
        except (TimeoutError, ActorLost) as error:
            log.warning(
                "a rollout actor did not hand back its groups (%s); their prompts are issued again",
                str(error) or f"no answer within {within_s:g} s",
            )

    def on(self, nodes: Collection[str]) -> set[int]:
        """Return the indices of the actors on `nodes`."""
        return {index for index, driven in self._driven.items() if driven.node in nodes}

    def leave(self, indices: Collection[int], reason: ActorLost, within_s: float) -> None:
        """Drain these actors in the background. `drive` then raises `reason` for each."""
        for index, driven in self._driven.items():
            if index in indices and not driven.draining:
                driven.draining = True
                task = asyncio.create_task(self._end(index, driven, reason, within_s))
                self._leaving.add(task)
                task.add_done_callback(self._leaving.discard)

    async def _end(self, index: int, driven: _Driven, reason: ActorLost, within_s: float) -> None:
        held = len(driven.rolls)
        await self._drain(driven, within_s)
        log.info("rollout actor %d has handed back %d groups", index, held)
        if not driven.ended.done():
            driven.ended.set_exception(reason)
