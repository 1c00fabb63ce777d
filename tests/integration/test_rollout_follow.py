"""Tests how a rollout actor loads published weights, and what it does with damaged versions.

Also tests prompts with a question that is too long or a damaged image.
"""

import asyncio
import re
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer

import awares.mini
from awares.chat import ChatFormat
from awares.errors import DataError
from awares.families.qwen2_5_vl import QWEN2_5_VL
from awares.sample import Label, Sample
from awares_platform.config import PlatformConfig
from awares_platform.config.grpo import GrpoConfig
from awares_platform.config.run import RunConfig
from awares_platform.engine.canary import Canary, CanaryMismatch
from awares_platform.engine.follow import Loaded, Missed
from awares_platform.engine.load import LoadReport, Prefetched
from awares_platform.grpo.announcing import SELDOM
from awares_platform.grpo.group import Outcome, Prompt
from awares_platform.grpo.rollout import RolloutActor
from awares_platform.grpo.scoring import Scoring
from awares_platform.method.reward import build_reward
from awares_platform.store import ObjectStore
from awares_platform.weights import Publisher, Received, Subscriber
from awares_platform.weights.manifest import version_folder
from tests.integration.fault import Status
from tests.integration.fault_proxy import proxy

pytestmark = pytest.mark.integration

POLICY = Path(awares.mini.__file__).parent / "policy_weights"


class FakeEngine:
    """An engine without a model, which receives versions as the real engine does.

    The load of version `mismatch_at` raises CanaryMismatch.
    """

    def __init__(self) -> None:
        self.version, self.held, self.mismatch_at = 0, cast(Received | None, None), -1

    async def load_version(
        self, subscriber: Subscriber, version: int, canary: Canary | None
    ) -> LoadReport:
        self.held = await asyncio.to_thread(subscriber.receive, version, self.held)
        if version == self.mismatch_at:
            raise CanaryMismatch(f"version {version}")
        self.version = version
        held = self.held
        return LoadReport(
            version,
            Prefetched(
                held.hops, held.size, held.detours, held.fetch_s, held.decode_s, held.verify_s
            ),
            0.0,
            0.0,
            0.001,
        )


def actor(store: ObjectStore, run: str, engine: FakeEngine) -> RolloutActor:
    config = PlatformConfig(
        run=RunConfig(name=run), store=store.config, grpo=GrpoConfig(poll_s=0.05 / SELDOM)
    )
    found = RolloutActor(config, 0)
    found._engine, found._canary = cast(Any, engine), cast(Any, None)
    return found


async def take(items: AsyncIterator[Loaded | Missed], count: int) -> list[Loaded | Missed]:
    async with asyncio.timeout(60):
        return [await anext(items) for _ in range(count)]


def weights(version: int) -> dict[str, torch.Tensor]:
    return {"weight": torch.full((1000,), float(version))}


def test_an_actor_goes_on_with_what_it_has_until_the_damage_is_mended(seaweed: ObjectStore) -> None:
    run, engine = f"run-{uuid.uuid4().hex[:8]}", FakeEngine()
    publisher = Publisher(seaweed, run)
    publisher.publish(1, weights(1))
    follow = actor(seaweed, run, engine).follow()

    async def watch() -> None:
        [first] = await take(follow, 1)
        assert isinstance(first, Loaded) and (first.version, engine.version) == (1, 1)
        publisher.publish(2, weights(2))
        seaweed.delete(f"{version_folder(run, 2)}/e1-d-r00000-00000.bin")
        missed = await take(follow, 2)
        assert all(
            isinstance(miss, Missed)
            and miss.version == 2
            and "asked the writer for an anchor" in miss.reason
            for miss in missed
        )
        assert (
            engine.version == 1
            and engine.held is not None
            and torch.equal(engine.held.state["weight"], weights(1)["weight"])
        )
        publisher.publish(3, weights(3))
        publisher.publish(4, weights(4))
        found = await take(follow, 1)
        while isinstance(found[0], Missed):
            found = await take(follow, 1)
        # The actor skips versions 2 and 3.
        assert isinstance(found[0], Loaded) and found[0].version == 4
        assert torch.equal(engine.held.state["weight"], weights(4)["weight"])

    asyncio.run(watch())


def test_a_store_that_stays_away_is_missed_and_met_again(seaweed: ObjectStore) -> None:
    run, engine = f"run-{uuid.uuid4().hex[:8]}", FakeEngine()
    Publisher(seaweed, run).publish(1, weights(1))
    with proxy(seaweed, retry_budget_s=0.2) as faults:
        faults.on(match="*/HEAD", method="GET", fault=Status(500))
        follow = actor(faults.store, run, engine).follow()

        async def watch() -> None:
            [miss] = await take(follow, 1)
            assert isinstance(miss, Missed) and miss.version is None and "HEAD" in miss.reason
            faults.clear()
            [load] = await take(follow, 1)
            assert isinstance(load, Loaded) and load.version == 1

        asyncio.run(watch())


def test_a_mismatch_is_not_missed_but_ends_the_actor(seaweed: ObjectStore) -> None:
    run, engine = f"run-{uuid.uuid4().hex[:8]}", FakeEngine()
    Publisher(seaweed, run).publish(1, weights(1))
    engine.mismatch_at = 1
    with pytest.raises(CanaryMismatch):
        asyncio.run(take(actor(seaweed, run, engine).follow(), 1))


@pytest.mark.parametrize(
    ("question", "image", "fault"),
    [
        ("which digit is it? " * 200, "whole", r"tokens of 1024 \(engine.max_model_len\); shorten"),
        ("which digit is it?", "damaged", "image damaged cannot be read"),
    ],
)
def test_a_fault_of_the_data_is_no_fault_of_the_engine(
    seaweed: ObjectStore, question: str, image: str, fault: str
) -> None:
    """The actor reports the fault without calling its engine, and the run leaves the group out."""

    def read(name: str) -> Image.Image:
        if name == "damaged":
            raise DataError(f"image {name} cannot be read")
        return Image.new("RGB", (224, 224))

    found = actor(seaweed, "faults", FakeEngine())
    found._chat = ChatFormat(AutoTokenizer.from_pretrained(POLICY))
    found._family, found._images = QWEN2_5_VL, cast(Any, read)
    prompt = Prompt(3, 0, Sample("s0", image, question, "7", label=Label.LR))
    group = Scoring(build_reward(found._config.method), found._config.grpo)(
        prompt, asyncio.run(found.rollout(prompt))
    )
    assert group.outcome is Outcome.UNPLAYABLE and re.search(fault, group.fault)
