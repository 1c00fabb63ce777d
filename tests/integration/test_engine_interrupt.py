"""Tests that real vLLM hands back the tokens of an interrupted turn, and goes on from them."""

import asyncio
from pathlib import Path

import pytest

from awares.episode import Episode, StopReason, run_episode
from awares.episode_spec import EpisodeSpec
from awares.generate import FinishReason, Sampling
from tests.integration.compared_episodes import Asking, distance, play
from tests.integration.random_policy import CONFIG, RandomPolicy
from tests.integration.running_engine import LIMITS, started

pytestmark = [pytest.mark.integration, pytest.mark.slow]
SAMPLING = Sampling(temperature=1.0, max_tokens=250)
EPISODES = 16


def test_interrupted_turns_go_on_from_their_tokens(tmp_path: Path) -> None:
    """Interrupt the engine during the second turns, and then continue the same episodes."""
    policy = RandomPolicy.build(tmp_path)
    spec = EpisodeSpec(LIMITS, sampling=SAMPLING)
    with started(policy.path, CONFIG, policy.chat) as (runner, engine):
        asking = Asking(engine, policy.chat)

        async def interrupted() -> list[Episode]:
            # The first episodes let the engine compile and cache what it needs.
            await play(policy, asking, Sampling(temperature=1.0, max_tokens=4), EPISODES)
            playing = asyncio.create_task(play(policy, asking, SAMPLING, EPISODES))
            while not engine._requests._names:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.5)
            await engine.interrupt()
            late = await engine(policy.ask(0, SAMPLING))
            assert (late.token_ids, late.finish) == ((), FinishReason.INTERRUPTED)
            # An interrupted engine must still score the canary prompts, which check loaded weights.
            assert len(await engine.score(*policy.canary.prompts[0])) > 0
            return await playing

        async def continued(cut: dict[int, Episode]) -> list[Episode]:
            engine._requests._interrupted = False
            samples = [policy.samples[index % len(policy.samples)] for index in cut]
            plays = (
                run_episode(
                    one, policy.images[one.image], asking, policy.chat, spec, f"x{index}", earlier
                )
                for one, (index, earlier) in zip(samples, cut.items(), strict=True)
            )
            return list(await asyncio.gather(*plays))

        found = enumerate(runner.run(interrupted()))
        cut = {index: one for index, one in found if one.stop is StopReason.UNFINISHED}
        whole = runner.run(continued(cut))
    held = [one.turns[1].sampled_ids for one in cut.values()]
    print("sampled before the cut", sorted(map(len, held)))
    assert len(cut) > EPISODES // 4 and min(map(len, held)) > 0
    for before, after, ids in zip(cut.values(), whole, held, strict=True):
        assert after.stop not in (StopReason.UNFINISHED, StopReason.ERROR)
        assert after.turns[0] == before.turns[0] and after.crops == before.crops
        assert after.turns[1].sampled_ids[: len(ids)] == ids
        assert after.turns[1].logprobs[: len(ids)] == before.turns[1].logprobs
        assert len(ids) < len(after.turns[1].sampled_ids) <= SAMPLING.max_tokens
    assert distance(policy, policy.model, whole, turn=1) < 0.01
