"""Tests how many groups the controller starts ahead of the learner, and which batches it forms."""

import asyncio
from collections.abc import Callable

from awares_platform.grpo.group import Position
from tests.unit.awares_platform.grpo.stage import Stage, play


def test_rollouts_run_ahead_by_the_bound_and_no_further(stage: Callable[..., Stage]) -> None:
    async def scene() -> None:
        acted = stage()
        running = asyncio.create_task(acted.controller.run())
        await asyncio.sleep(0.05)
        # No group starts before a learner attaches and states the position of the run.
        assert acted.played() == []
        await acted.controller.attach(0, Position())
        # A batch has two groups. With a `staleness_bound` of 1, actors may play one batch ahead.
        assert await acted.rest(4) == [0, 1, 2, 3]
        assert await acted.step(0, 0) == [0, 1]
        assert await acted.rest(6) == [0, 1, 2, 3, 4, 5]
        assert await acted.step(1, 1) == [0, 1, 2, 3]
        await acted.controller.close()
        await running

    play(scene())


def test_a_dead_actors_prompts_are_played_by_its_successor(stage: Callable[..., Stage]) -> None:
    async def scene() -> None:
        acted = stage()
        acted.dies_at = [1]
        running = asyncio.create_task(acted.controller.run())
        await acted.controller.attach(0, Position())
        assert await acted.step(0, 0) == [0, 1]
        assert await acted.step(1, 1) == [0, 1, 2, 3]
        rows = [await acted.row() for _ in range(2)]
        # The controller has replaced the dead actor before it records the second step.
        assert rows[1] is not None and rows[1][1]["actors/restarts"] == 1
        await acted.controller.close()
        await running
        assert [line for line in acted.log if "1" == line.split()[-1]] == [
            "actor0 plays 1",
            "actor1 plays 1",
        ]
        assert acted.log.index("kill actor0") < acted.log.index("start actor1")
        assert sorted(group.prompt.number for group in acted.journal.groups)[:4] == [0, 1, 2, 3]

    play(scene())


def test_a_waiting_batch_of_a_dead_learner_takes_nothing(stage: Callable[..., Stage]) -> None:
    async def scene() -> None:
        acted = stage()
        await acted.controller.attach(0, Position())
        orphan = asyncio.create_task(acted.controller.batch(0, 0, 0, 1))
        await asyncio.sleep(0.01)
        await acted.controller.attach(1, Position())
        assert await orphan is None
        running = asyncio.create_task(acted.controller.run())
        acted.bus.publish(1)
        assert await acted.step(0, 1) == [0, 1]
        await acted.controller.close()
        await running

    play(scene())


def test_all_ranks_get_shares_of_one_batch(stage: Callable[..., Stage]) -> None:
    async def scene() -> None:
        acted = stage()
        running = asyncio.create_task(acted.controller.run())
        await acted.controller.attach(0, Position())
        first, second = await asyncio.gather(
            *(acted.controller.batch(0, 0, rank, 2) for rank in range(2))
        )
        assert first is not None and second is not None
        # All four episodes have the same tokens, so the batch has one sequence. The second rank
        # gets a filler sequence.
        chunks = [shard.minibatches[0].passes for shard in (first, second)]
        assert [[(len(item.episodes), item.filler) for item in chunk] for (chunk,) in chunks] == [
            [(4, False)],
            [(1, True)],
        ]
        assert first.position == second.position == Position(2)
        await acted.controller.close()
        await running

    play(scene())


def test_the_batch_is_dealt_with_advantages_scaled_by_the_batch(
    stage: Callable[..., Stage],
) -> None:
    async def scene() -> None:
        acted = stage(advantage_scale="batch", std_eps=0.5)
        running = asyncio.create_task(acted.controller.run())
        await acted.controller.attach(0, Position())
        shard = await acted.controller.batch(0, 0, 0, 1)
        assert shard is not None
        # The stage sets the advantages 1 and -1. The controller divides them by 0.5: the standard
        # deviation of the rewards, 0, plus std_eps.
        (((sequence,),),) = [minibatch.passes for minibatch in shard.minibatches]
        assert sorted(sequence.advantages) == [-2.0, -2.0, 2.0, 2.0]
        await acted.controller.close()
        await running

    play(scene())
