"""Tests that an endpoint serves a policy with its LoRA adapter, and follows a LoRA run.

The endpoint's replica runs in this process, without Ray Serve. The bfloat16 engine and the HTTP
application are real.
"""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

import awares.mini
from awares.chat import ChatFormat
from awares.families.qwen2_5_vl import QWEN2_5_VL
from awares.mini.benchmark import generate_split
from awares.sample import Label
from awares_platform.config import PlatformConfig
from awares_platform.config.run import RunConfig
from awares_platform.data.dataset import ensure_mini, read_samples, write_samples
from awares_platform.engine.canary import Canary, Logprobs, tails, to_extra
from awares_platform.engine.canary_change import change
from awares_platform.engine.canary_samples import build
from awares_platform.method.environment import system_prompt, vision_limits
from awares_platform.serve.deployment import Replica
from awares_platform.store import ObjectStore
from awares_platform.training.export import export_adapter, export_policy
from awares_platform.training.policy import load_processor
from awares_platform.weights import Identity, Publisher
from tests.integration.running_engine import two_canaries
from tests.integration.trained_adapter import RANK, TrainedAdapter

pytestmark = [pytest.mark.integration, pytest.mark.slow]

POLICY = Path(awares.mini.__file__).parent / "policy_weights"
RUN, FURTHER = "served", "further"
Plain: Any = Replica.__bases__[0]
"""The replica's class without Ray Serve's wrapper. The constructor of the wrapper needs Ray."""


@dataclass(frozen=True)
class Learner:
    """A learner's adapter, its canary, and questions to train on."""

    config: PlatformConfig
    store: ObjectStore
    trained: TrainedAdapter
    batch: Canary
    start: Logprobs
    """The canary's logprobs without the adapter."""

    def train(self) -> Logprobs:
        """Take ten training steps, and return the canary's new logprobs."""
        for _ in range(10):
            self.trained.step(self.batch, 1e-4)
        return self.trained.logprobs()

    def publish(self, publisher: Publisher, learned: Logprobs, start: Logprobs) -> int:
        """Publish the adapter with the learner's logprobs, and return the version.

        `learned` holds the present logprobs, and `start` the logprobs of version 0.
        """
        version = (publisher.version or 0) + 1
        extra = {"canary": to_extra(self.trained.canary, learned, start)}
        publisher.publish(version, self.trained.published(), extra)
        return version

    def serving(self, **settings: Any) -> PlatformConfig:
        serve = self.config.serve.model_copy(update=settings)
        return self.config.model_copy(update={"serve": serve})


@pytest.fixture(scope="module")
def learner(seaweed: ObjectStore, tmp_path_factory: pytest.TempPathFactory) -> Learner:
    """Return a learner, and record the name of its labelled data, which an endpoint must find.

    The record of curate in the run RUN and the record of sft in the run FURTHER have this name.
    """
    config = PlatformConfig.model_validate(
        {
            "run": {"name": RUN},
            "store": seaweed.config,
            "data": {
                "train_samples": 8,
                "test_samples": 1,
                "image_cache": str(tmp_path_factory.mktemp("images")),
            },
            "engine": {"kv_cache_gib": 0.25, "dtype": "bfloat16"},
            "policy": {"lora_rank": RANK},
            "grpo": {"start": "base"},
        }
    )
    ensure_mini(config.data, seaweed)
    samples = [
        replace(sample, label=Label.LR) for sample in read_samples(seaweed, "awares-mini", "train")
    ]
    labels = f"{config.data.curated}-5f2a"
    write_samples(seaweed, labels, "train", samples)
    recorded = json.dumps({"data": {"labels": labels}}).encode()
    for record in (f"{RUN}/curate", f"{FURTHER}/sft"):
        seaweed.put(f"runs/{record}/config.json", recorded)
    data = config.data.model_copy(update={"labels": labels})
    method, context = config.method, config.engine.max_model_len
    processor = load_processor(POLICY, QWEN2_5_VL, method.min_pixels, method.max_pixels)
    chat = ChatFormat(processor.tokenizer, system_prompt(method), QWEN2_5_VL.chat)
    limits = vision_limits(method, QWEN2_5_VL)
    canary = build(seaweed, data, chat, limits, method.low_ratio, context)
    trained = TrainedAdapter.attach(POLICY, processor, canary, torch.bfloat16)
    return Learner(config, seaweed, trained, two_canaries(chat)[1], trained.logprobs())


@asynccontextmanager
async def replica(config: PlatformConfig) -> AsyncIterator[Any]:
    started: Any = object.__new__(Plain)
    try:
        await started.__init__(config)
        yield started
    finally:
        await started.__del__()


async def answering_version(started: Any) -> int:
    """Ask the replica a question over HTTP, and return the version of the answer's weights."""
    data, sample = next(iter(generate_split("test", 1, seed=5)))
    url = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    content = [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "text", "text": sample.question},
    ]
    body = {"model": "awares", "messages": [{"role": "user", "content": content}]}
    transport = httpx.ASGITransport(started.__serve_build_asgi_app__())
    async with httpx.AsyncClient(transport=transport, base_url="http://replica") as client:
        reply = await client.post("/v1/chat/completions", json=body)
    assert reply.status_code == 200, reply.text
    return reply.json()["awares"]["weight_version"]


async def until(started: Any, version: int) -> None:
    """Wait until the replica answers with `version`."""
    async with asyncio.timeout(60):
        while await answering_version(started) != version:
            await started.check_health()
            await asyncio.sleep(0.2)


async def slope(started: Any, learner: Learner, learned: Logprobs) -> float:
    """Return how much the logprobs change in the engine, relative to the change in the learner.

    The learner's logprobs of version 0 also stand for the engine's, because they differ only by
    0.04 nats.
    """
    canary = learner.trained.canary
    rows = [started._engine.score(ids, images) for ids, images in canary.prompts]
    measured = tails(await asyncio.gather(*rows), canary)
    found = change(learned, learner.start, measured, learner.start)
    print(found)
    return found.slope


def test_an_exported_adapter_is_served(learner: Learner) -> None:
    learned, trained = learner.train(), learner.trained
    named = (learner.store, RUN, "awares", QWEN2_5_VL, learner.config.method)
    export_policy(trained.merged(), POLICY, *named)
    export_adapter(trained.published(), trained.scale, POLICY, "base", *named)

    async def serve() -> None:
        async with replica(learner.serving(policy="awares")) as started:
            assert started._engine._adapters is not None
            assert await answering_version(started) == 0
            assert await slope(started, learner, learned) == pytest.approx(1, abs=0.15)

    asyncio.run(serve())


def test_an_endpoint_follows_the_adapters_of_a_run(learner: Learner) -> None:
    """Each load must also pass the replica's own canary check, or the replica fails."""
    learned = learner.train()
    identity = Identity(adapter=learner.trained.scale)
    publisher = Publisher(learner.store, RUN, identity=identity)
    assert learner.publish(publisher, learned, learner.start) == 1

    async def serve() -> None:
        async with replica(learner.serving(policy="base", follow=True)) as started:
            assert await answering_version(started) == 1
            assert await slope(started, learner, learned) == pytest.approx(1, abs=0.15)
            later = await asyncio.to_thread(learner.train)
            start = learner.start
            assert await asyncio.to_thread(learner.publish, publisher, later, start) == 2
            await until(started, 2)
            assert await slope(started, learner, later) == pytest.approx(1, abs=0.15)
            before = await slope(started, learner, learned)
            assert before > 1.15, "the engine plays more than the first version"

    asyncio.run(serve())


def test_an_endpoint_follows_a_run_that_trains_the_adapter_of_sft_further(
    learner: Learner,
) -> None:
    """Until version 1 is published, the endpoint uses the adapter of SFT."""
    learned, trained, run = learner.train(), learner.trained, RunConfig(name=FURTHER)
    named = (learner.store, run.name, "sft", QWEN2_5_VL, learner.config.method)
    export_policy(trained.merged(), POLICY, *named, adapter=True)
    export_adapter(trained.published(), trained.scale, POLICY, "base", *named)
    serving = learner.serving(policy="sft", follow=True)
    policy = serving.policy.model_copy(update={"dtype": "bfloat16"})
    grpo = serving.grpo.model_copy(update={"start": "sft"})
    config = serving.model_copy(update={"run": run, "policy": policy, "grpo": grpo})

    async def serve() -> None:
        async with replica(config) as started:
            assert await answering_version(started) == 0
            assert await slope(started, learner, learned) == pytest.approx(1, abs=0.15)
            identity = Identity(adapter=trained.scale)
            publisher = await asyncio.to_thread(
                Publisher, learner.store, run.name, identity=identity
            )
            later = await asyncio.to_thread(learner.train)
            assert await asyncio.to_thread(learner.publish, publisher, later, learned) == 1
            await until(started, 1)
            assert await slope(started, learner, later) == pytest.approx(1, abs=0.15)

    asyncio.run(serve())
