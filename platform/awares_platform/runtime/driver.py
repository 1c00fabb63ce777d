"""Places the actors that steer a job on the driver's node, and turns Ray's errors into PartLost."""

from collections.abc import Awaitable, Mapping
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from awares_platform.runtime.watch import PartLost

T = TypeVar("T")


def beside_driver(**options: Any) -> dict[str, Any]:
    """Return Ray's options of an actor that steers a job, with further `options`.

    The actor needs no CPU of its own. It runs on the node of the calling process. Otherwise Ray
    might place it on a node that the cloud takes back at any time.
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

    Raises PartLost if the actor's process or its node is dead, or if Ray has lost the object. If
    the actor's own method raises an error, Ray's RayTaskError around this error passes unchanged.
    """
    try:
        return await reference
    except RayTaskError as error:
        if isinstance(error.cause, RayError):
            raise PartLost(f"{name} is dead: {first_line(error.cause)}") from None
        raise
    except RayError as error:
        raise PartLost(f"{name} is dead: {first_line(error)}") from None


def first_line(error: BaseException) -> str:
    """Return the first line of the error's message, or the name of its type."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
