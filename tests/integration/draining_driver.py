"""Uses an actor on a spot node until Ray announces the loss of this node, and then ends the actor.

The program prints a line at each of these events.
"""

import asyncio
import time
from collections.abc import Collection
from typing import Any

import ray

from awares_platform.grpo.notices import watch_nodes
from tests.faults.cluster import LABEL

HELD_S = 2.0
"""Seconds between the notice and the end of the actor."""


class Held:
    """An actor that answers requests."""

    def ping(self) -> str:
        """Return the id of the actor's node."""
        return ray.get_runtime_context().get_node_id()


async def main() -> None:
    """Run the program."""
    ray.init()
    actor: Any = ray.remote(num_cpus=1, label_selector={LABEL: "spot"})(Held).remote()
    node = await actor.ping.remote()
    left = asyncio.Event()

    async def leave(nodes: Collection[str]) -> None:
        if node in nodes:
            left.set()

    watching = asyncio.create_task(watch_nodes(leave))
    print("runs", flush=True)
    await left.wait()
    print("notice", flush=True)
    watching.cancel()
    await asyncio.sleep(HELD_S)
    assert await actor.ping.remote() == node
    ray.kill(actor)
    print("handed back", flush=True)
    while any(one["Alive"] and one["NodeID"] == node for one in ray.nodes()):
        time.sleep(0.1)
    print("gone", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
