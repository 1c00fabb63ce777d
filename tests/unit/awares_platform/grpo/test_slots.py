"""Tests how long a group occupies one of its actor's slots."""

import asyncio
from collections.abc import Callable, Sequence

import pytest

from awares.episode import Episode
from awares_platform.grpo.group import Group, GroupRollout, Prompt
from tests.unit.awares_platform.grpo.fake_actor import FakeActor
from tests.unit.awares_platform.grpo.stage import Stage, play


def test_an_actor_plays_while_its_groups_are_scored(
    stage: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene() -> None:
        acted = stage(groups_in_flight=1)
        driving = acted.controller._driving
        score, may_score = driving._score, asyncio.Event()

        async def scored(prompt: Prompt, rollout: GroupRollout) -> Group:
            await may_score.wait()
            return await score(prompt, rollout)

        monkeypatch.setattr(driving, "_score", scored)
        async with acted.running():
            # The four groups fill the buffer, which has room for two batches. A group takes room in
            # the buffer even while it waits for a score.
            assert await acted.rest(4) == [0, 1, 2, 3]
            may_score.set()
            assert await acted.step(0, 0) == [0, 1]
            assert await acted.rest(6) == [0, 1, 2, 3, 4, 5]

    play(scene())


def test_an_actor_plays_no_more_groups_at_once_than_it_has_slots(
    stage: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    playing, most = 0, 0
    rollout = FakeActor.rollout

    async def counted(self: FakeActor, prompt: Prompt, begun: Sequence[Episode]) -> GroupRollout:
        nonlocal playing, most
        playing += 1
        most = max(most, playing)
        try:
            return await rollout(self, prompt, begun)
        finally:
            playing -= 1

    monkeypatch.setattr(FakeActor, "rollout", counted)

    async def scene() -> None:
        acted = stage(groups_in_flight=3, groups_per_step=8)
        async with acted.running():
            for step in range(3):
                assert await acted.step(step, step)

    play(scene())
    assert most == 3
