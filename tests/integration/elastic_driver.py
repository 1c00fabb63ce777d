"""Runs a controller on a Ray cluster whose nodes come and go, and prints what it has trained.

Usage: `python elastic_driver.py <settings of the store as JSON>`

Controller, journal, store, Ray and its autoscaler are real. The actors wait instead of generating,
and this process acts as the learner. The last line of the output is a `Trained` object as JSON.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import pytest

from awares.reward import RewardValue
from awares.sample import Label, Sample
from awares_platform.config import PlatformConfig
from awares_platform.grpo import rollout, sizing
from awares_platform.grpo.buffer import EpisodeBuffer
from awares_platform.grpo.controller import Controller
from awares_platform.grpo.group import Group, GroupRollout, Member, Outcome, Position, Prompt
from awares_platform.grpo.journal import Journal
from awares_platform.grpo.notices import watch_nodes
from awares_platform.grpo.prompts import Prompts
from awares_platform.grpo.record_book import StoredBook
from awares_platform.grpo.shard import StepShard
from awares_platform.grpo.validation import HeldOut, Validation
from awares_platform.store import ObjectStore
from tests.faults.cluster import LABEL
from tests.integration.autoscaled_cluster import AutoscaledCluster, autoscaled
from tests.integration.waiting_rollout import HEAD, WaitingRollout

POOL, WINDOW_S = "rollout", 4.0
GROUPS_IN_FLIGHT, GROUPS, STALENESS = 4, 2, 12
"""With this staleness, all slots are in use, and no group that is handed back becomes too stale."""


@dataclass(frozen=True, slots=True)
class Trained:
    """The prompts that the learner has trained on, in order, and the ids sampled for each prompt.

    `losses` is the number of actors that count as failed. `seconds` holds the wait for each event.

    Example:
        Trained([0, 1], [[17, 17], [17, 23]], losses=0, seconds={"both actors are ready": 9.5})
    """

    prompts: list[int]
    sampled: list[list[int]]
    losses: int
    seconds: dict[str, float]


class Run:
    """A controller on the cluster, and a learner that trains `train_s` seconds in each step."""

    def __init__(self, config: PlatformConfig) -> None:
        settings, store = config.grpo, ObjectStore.from_config(config.store)
        samples = [
            Sample(f"s{number}", "ab" * 32, f"question {number}?", "7", label=Label.LR)
            for number in range(500)
        ]
        buffer = EpisodeBuffer(Prompts(samples, 0), GROUPS, STALENESS)
        held_out = HeldOut((), lambda *_: 0.0, settings.validation, settings.steps)
        self.controller = Controller(
            settings,
            buffer,
            Journal(store, "elastic", "start"),
            score,
            lambda index: rollout.RemoteActor(config, index),
            Validation(held_out, score, StoredBook(store, "elastic")),
        )
        self.fleet, self.driving = self.controller._fleet, self.controller._driving
        self.train_s, self.trained, self.seconds = 0.0, list[Group](), dict[str, float]()
        self._store = store
        self.publish(0)

    def publish(self, version: int) -> None:
        self._store.put(HEAD, str(version).encode())

    async def learn(self) -> None:
        """Take a step after another. Never return."""
        step = 0
        while True:
            asked = time.monotonic()
            shard = await self.controller.batch(step, step, 0, 1)
            waited = time.monotonic() - asked
            assert isinstance(shard, StepShard) and self.controller._batch is not None
            self.trained += self.controller._batch[0].groups
            await asyncio.sleep(self.train_s)
            await asyncio.to_thread(self.publish, step + 1)
            await self.controller.learned(step, {"time/wait": waited})
            step += 1

    async def until(self, condition: Callable[[], bool], event: str) -> None:
        """Wait for `condition`. Raises TimeoutError with the text `event` after a minute."""
        begun = time.monotonic()
        while not condition():
            if time.monotonic() > begun + 60:
                raise TimeoutError(event)
            await asyncio.sleep(0.1)
        self.seconds[event] = round(time.monotonic() - begun, 1)


async def score(prompt: Prompt, played: GroupRollout) -> Group:
    value = RewardValue(1.0, {})
    members = tuple(
        Member(one, value, True, 1.0 - 2 * index) for index, one in enumerate(played.episodes)
    )
    return Group(prompt, members, Outcome.READY, played.ended - played.started)


async def come_and_go(run: Run, nodes: AutoscaledCluster) -> None:
    """Take a node back, then slow down and speed up training, which changes the wanted actors."""
    fleet = run.fleet
    await run.until(lambda: fleet.ready == {0, 1}, "both actors are ready")
    before, taken = nodes.labelled(), run.driving._driven[1].node
    assert len(before) == 2 and taken in before
    await asyncio.to_thread(nodes.take_back, taken, 10)
    await run.until(lambda: fleet.ready == {0}, "the actor of a node that is taken back has left")
    await run.until(lambda: fleet.ready == {0, 1}, "the autoscaler has replaced its node")
    assert run.driving._driven[1].node not in before

    run.train_s = 2.0
    await run.until(lambda: fleet.wanted == {0}, "the run releases an actor")
    await run.until(lambda: len(nodes.labelled()) == 1, "the autoscaler removes its node")
    assert fleet.ready == {0}

    run.train_s = 0.0
    await run.until(lambda: fleet.wanted == {0, 1}, "the run wants another actor")
    await run.until(lambda: fleet.ready == {0, 1}, "the autoscaler has added a node for it")
    assert len(nodes.labelled()) == 2


async def scene(config: PlatformConfig, nodes: AutoscaledCluster) -> Run:
    run = Run(config)
    controller = run.controller
    assert nodes.labelled() == set()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(controller.run())
        watching = tasks.create_task(watch_nodes(controller.leave))
        await controller.attach(0, Position())
        learning = tasks.create_task(run.learn())
        await come_and_go(run, nodes)
        learning.cancel()
        watching.cancel()
        await controller.close()
        await running
    return run


def main(store: str) -> None:
    config = PlatformConfig.model_validate(
        {
            "run": {"name": "elastic"},
            "store": json.loads(store),
            "grpo": {
                "rollout_actors": 2,
                "rollout_actors_min": 1,
                "rollout_selector": {LABEL: POOL},
                "groups_in_flight": GROUPS_IN_FLIGHT,
                "groups_per_step": GROUPS,
                "group_size": 2,
                "staleness_bound": STALENESS,
                "actor_restarts": 0,
            },
        }
    )
    with (
        pytest.MonkeyPatch.context() as patch,
        autoscaled(os.environ, POOL, most=2, idle_s=2.0) as nodes,
    ):
        patch.setattr(rollout, "RolloutActor", WaitingRollout)
        patch.setattr(sizing, "WINDOW_S", WINDOW_S)
        run = asyncio.run(scene(config, nodes))
    trained = Trained(
        [group.prompt.number for group in run.trained],
        [[*group.episodes[0].turns[0].sampled_ids] for group in run.trained],
        run.fleet.losses,
        run.seconds,
    )
    print(json.dumps(asdict(trained)))


if __name__ == "__main__":
    main(sys.argv[1])
