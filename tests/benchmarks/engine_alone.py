"""Measures the speed of an engine with a GRPO run's requests, without Ray, learner and reward.

    python tests/benchmarks/engine_alone.py SETUP OUTPUT

SETUP and OUTPUT are JSON files: the setup of a finished run, and the episodes per second. The
requests come from the run's journal.
"""

import asyncio
import json
import os
import sys
import time
from pathlib import Path

from transformers import AutoProcessor

from awares.chat import ChatFormat
from awares.episode import Episode
from awares.generate import GenerateRequest, Sampling
from awares.images import render
from awares_platform.config import PlatformConfig
from awares_platform.config.grpo import GrpoConfig
from awares_platform.data.dataset import Images
from awares_platform.engine.engine import Engine
from awares_platform.grpo.job import journal_of
from awares_platform.method.environment import system_prompt, vision_limits
from awares_platform.method.family import model_family
from awares_platform.runtime.session import store_session
from awares_platform.store import ObjectStore
from awares_platform.training.curated_set import with_labels

Groups = list[list[list[GenerateRequest]]]
"""Groups of episodes. An episode is the list of its turns' requests."""
WARM_UP = 16
"""The number of groups that the engine answers before the measurement."""


def recorded(config: PlatformConfig, chat: ChatFormat) -> Groups:
    """Return the requests of the groups in the run's journal, with their images."""
    store = ObjectStore.from_config(config.store)
    images = Images.of(store, config.data)
    grpo = config.grpo
    sampling = Sampling(grpo.temperature, top_p=1.0, max_tokens=grpo.max_tokens)

    def requests(episode: Episode) -> list[GenerateRequest]:
        ids, views, found = [], [], []
        for turn in episode.turns:
            ids += turn.context_ids
            image = images(episode.image)
            views += [render(image, view, config.method.low_ratio) for view in turn.views]
            found.append(GenerateRequest(tuple(ids), tuple(views), sampling, episode.sample_id))
            ids += turn.sampled_ids
        return found

    groups = journal_of(with_labels(config, store), store).read().groups
    return [[requests(member.episode) for member in group.members] for group in groups]


async def send(engine: Engine, groups: Groups, grpo: GrpoConfig) -> float:
    """Send all requests, and return the seconds until the last reply.

    An episode sends the request of its next turn when it has the reply to the turn before.
    """
    slots = asyncio.Semaphore(grpo.groups_in_flight)

    async def episode(turns: list[GenerateRequest]) -> None:
        for request in turns:
            await engine(request)

    async def group(episodes: list[list[GenerateRequest]]) -> None:
        async with slots:
            await asyncio.gather(*(episode(turns) for turns in episodes))

    started = time.perf_counter()
    await asyncio.gather(*(group(episodes) for episodes in groups))
    return time.perf_counter() - started


async def measure(config: PlatformConfig) -> dict[str, float]:
    """Return the number of measured episodes, and the episodes per second."""
    method, policy = config.method, Path(config.policy.base)
    family = model_family(config.policy)
    chat = ChatFormat(
        AutoProcessor.from_pretrained(policy).tokenizer, system_prompt(method), family.chat
    )
    groups = recorded(config, chat)
    engine = await Engine.start(
        policy, config.engine, chat, family=family, limits=vision_limits(method, family)
    )
    async with engine:
        await send(engine, groups[:WARM_UP], config.grpo)
        seconds = await send(engine, groups[WARM_UP:], config.grpo)
    episodes = sum(len(group) for group in groups[WARM_UP:])
    return {"episodes": episodes, "rate": episodes / seconds}


def main() -> None:
    config = PlatformConfig.model_validate_json(Path(sys.argv[1]).read_text("utf-8"))
    os.environ["OMP_NUM_THREADS"] = str(config.engine.threads)
    with store_session(config) as config:
        figures = asyncio.run(measure(config))
    Path(sys.argv[2]).write_text(json.dumps(figures), "utf-8")


if __name__ == "__main__":
    main()
