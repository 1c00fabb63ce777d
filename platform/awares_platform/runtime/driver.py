"""Places the actors that steer a job on the driver's node, and reports processes that have died.

If Ray reports a dead process or a lost result, this module raises PartLost instead of Ray's error.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import ray
from ray.exceptions import ActorUnavailableError, RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from awares_platform.runtime import event_loop
from awares_platform.runtime.watch import ENGINE_MARGIN, PartLost, Waiting, guarded, watch

_LOOK_S = 5.0
T = TypeVar("T")


def beside_driver(**options: Any) -> dict[str, Any]:
    """Return Ray's options for an actor that steers a job, merged with `options`.

    The actor reserves no CPU. It runs on the caller's node, because the cloud may take other nodes
    back at any time.
    """
    node = ray.get_runtime_context().get_node_id()
    return {
        "num_cpus": 0,
        "scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False),
        **options,
    }


def needs(cpus: float, gpus: float, labels: Mapping[str, str]) -> str:
    """Return as text which node a process needs, such as "1 CPU, 1 GPU on nodes with a=b"."""
    counts = ", ".join(
        f"{count:g} {name}" for name, count in (("CPU", cpus), ("GPU", gpus)) if count
    )
    where = ", ".join(f"{name}={value}" for name, value in labels.items())
    return f"{counts or 'no CPU'} on nodes with {where}" if where else counts or "no CPU"


async def reply(name: str, reference: Awaitable[T]) -> T:
    """Await a result of the actor `name`, and return it.

    Raises PartLost if the actor or its result is lost, or if the actor raises PartLost. Other
    errors of the actor become Ray's RayTaskError.
    """
    try:
        return await reference
    except RayTaskError as error:
        if isinstance(error.cause, PartLost):
            raise PartLost(str(error.cause)) from None
        if isinstance(error.cause, RayError):
            raise PartLost(f"{name} is dead: {first_line(error.cause)}") from None
        raise
    except RayError as error:
        raise PartLost(f"{name} is dead: {first_line(error)}") from None


class Watched:
    """Lets a driver without an event loop wait for an actor that holds an engine.

    The actor needs an asynchronous method `ping`.

    Example:
        watched = Watched("the evaluator", actor, config.run.hang_timeout_s)
        watched.wait_for_node("1 GPU", progress.say)
        played = watched.result(watched.actor.play.remote(policy, samples))
    """

    def __init__(self, name: str, actor: Any, hang_timeout_s: float) -> None:
        self._name, self.actor, self._hang_timeout_s = name, actor, hang_timeout_s

    def wait_for_node(self, place: str, say: Callable[[str], None]) -> None:
        """Wait without limit until the actor runs.

        Meanwhile, `say` prints at intervals that the actor needs `place`, such as "1 GPU".

        Raises PartLost if the actor dies meanwhile.
        """
        event_loop.run(self._placed(place, Waiting(say)))

    async def _placed(self, place: str, waiting: Waiting) -> None:
        answer = asyncio.ensure_future(reply(self._name, self.actor.ping.remote()))
        while not (await asyncio.wait([answer], timeout=_LOOK_S))[0]:
            waiting.tell(f"{self._name} needs {place}")
        answer.result()

    def result(self, reference: Awaitable[T]) -> T:
        """Wait for the result of a method call on the actor, and return it.

        Raises PartLost if the actor dies or hangs meanwhile. Raises Ray's RayTaskError if the
        actor's method raises another error.
        """
        return event_loop.run(self._result(reference))

    async def _result(self, reference: Awaitable[T]) -> T:
        pings = watch(
            self._name,
            lambda: reply(self._name, self.actor.ping.remote()),
            self._hang_timeout_s * ENGINE_MARGIN,
        )
        return await guarded(reply(self._name, reference), pings)


def first_line(error: BaseException) -> str:
    """Return the first line of the error's message without a full stop, or its type's name.

    For a lost node or connection, Ray's first line hides the cause. The function then returns a
    clearer text.
    """
    if isinstance(error, RayActorError) and error.preempted:
        return "the cloud has taken its node back, as announced"
    if isinstance(error, ActorUnavailableError):
        return "the connection to it is lost; its process or its node may be dead"
    if isinstance(error, RayError) and "because its node has died" in str(error):
        return "its node has died"
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
