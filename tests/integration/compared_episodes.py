"""Plays episodes, and compares the engine's logprobs with the logprobs of transformers."""

import asyncio
from typing import Any

import torch
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration

from awares.batch import collate
from awares.chat import ChatFormat
from awares.crops import CropId
from awares.episode import Episode, run_episode
from awares.episode_spec import EpisodeSpec
from awares.generate import FinishReason, Generate, GenerateRequest, Generation, Sampling
from awares.logprobs import policy_logprobs
from awares.protocol import format_request
from awares_platform.engine.engine import Engine
from tests.integration.random_policy import RandomPolicy
from tests.integration.running_engine import LIMITS


def errors(
    policy: RandomPolicy,
    model: Qwen2_5_VLForConditionalGeneration,
    episodes: list[Episode],
    turn: int,
    **sampling: Any,
) -> Tensor:
    """Return the logprob differences, engine minus transformers, of the tokens of one turn.

    `sampling` has keyword arguments of `policy_logprobs`, such as `blocked_ids`.
    """
    batch = collate(episodes, policy.images.__getitem__, policy.processor, LIMITS, 0.5)
    with torch.no_grad():
        wanted_BT = policy_logprobs(model, batch, **sampling)
    found = []
    for row, episode in enumerate(episodes):
        skipped = sum(len(before.sampled_ids) for before in episode.turns[:turn])
        columns = (
            batch.action_mask_BT[row]
            .nonzero()
            .squeeze(1)[skipped : skipped + len(episode.turns[turn].sampled_ids)]
        )
        found.append(batch.behaviour_logprobs_BT[row, columns] - wanted_BT[row, columns])
    return torch.cat(found)


def distance(
    policy: RandomPolicy,
    model: Qwen2_5_VLForConditionalGeneration,
    episodes: list[Episode],
    turn: int = 0,
) -> Tensor:
    """Return the mean absolute difference of one turn's logprobs between engine and transformers.

    The engine never samples the blocked ids, so transformers also gives them zero probability.
    """
    return errors(policy, model, episodes, turn, blocked_ids=policy.chat.blocked_ids).abs().mean()


async def play(
    policy: RandomPolicy, generate: Generate, sampling: Sampling, count: int
) -> list[Episode]:
    """Play `count` episodes concurrently, and return the episodes."""
    spec = EpisodeSpec(LIMITS, sampling=sampling)
    samples = [policy.samples[index % len(policy.samples)] for index in range(count)]
    runs = [
        run_episode(one, policy.images[one.image], generate, policy.chat, spec, f"{index}")
        for index, one in enumerate(samples)
    ]
    episodes = list(await asyncio.gather(*runs))
    assert not [episode.error for episode in episodes if episode.error]
    return episodes


class Asking:
    """Wraps an engine, and makes the first turn of each episode ask for two crops.

    The wrapped engine samples only the later turns.
    """

    def __init__(self, engine: Engine, chat: ChatFormat) -> None:
        self._engine = engine
        self._request = chat.target(format_request([CropId.TOP_LEFT, CropId.BOTTOM]))
        self._image = chat.image_token_id

    async def __call__(self, request: GenerateRequest) -> Generation:
        if request.token_ids.count(self._image) > 1:
            return await self._engine(request)
        count = len(self._request)
        return Generation(self._request, (0.0,) * count, (0,) * count, FinishReason.STOP)
