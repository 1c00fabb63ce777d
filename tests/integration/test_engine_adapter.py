"""Tests that a bfloat16 engine applies the whole update of a LoRA run, and never mixes versions.

The slope is the change of the engine's logprobs / the change of the learner's. It should be 1.
"""

import asyncio
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoProcessor

import awares.mini
from awares.chat import ChatFormat
from awares.generate import GenerateRequest, Generation, Sampling
from awares_platform.config.engine import EngineConfig
from awares_platform.engine import canary_change
from awares_platform.engine.canary import Canary, CanaryMismatch, Logprobs, to_extra
from awares_platform.engine.load import LoadReport
from awares_platform.store import ObjectStore
from awares_platform.store.errors import StoreError
from awares_platform.weights import Identity, Publisher, Subscriber, WeightsError
from awares_platform.weights.adapter import DOWN, UP
from tests.integration.fault import Status
from tests.integration.fault_proxy import proxy
from tests.integration.running_engine import Running, started, two_canaries
from tests.integration.trained_adapter import RANK, TrainedAdapter

pytestmark = [pytest.mark.integration, pytest.mark.slow]

POLICY = Path(awares.mini.__file__).parent / "policy_weights"
CONFIG = EngineConfig(dtype="bfloat16", kv_cache_gib=0.25, max_requests=32)
STEPS = {1: 5e-3, 10: 3e-4, 100: 3e-5}
"""The slope is measured after 1, 10 and 100 steps. A value is the size of the steps before it.

The first step is large, so that it changes the logprobs by more than rounding errors.
"""
LARGEST_TOLERANCE = 0.15
"""The largest tolerance of the slope that a test accepts. Rounding errors widen the tolerance."""


@dataclass(frozen=True)
class Setup(Running):
    """An engine that runs adapters, and the learner's adapter.

    `batch` has the answers on which the learner trains.
    """

    trained: TrainedAdapter
    batch: Canary
    start: Logprobs
    """The learner's logprobs of the canary prompts with version 0."""
    engine_start: Logprobs
    """The engine's logprobs of the canary prompts with version 0."""
    store: ObjectStore

    def publish(
        self, run: str, version: int, adapter: dict[str, Tensor], learned: Logprobs
    ) -> Subscriber:
        publisher = Publisher(self.store, run, identity=Identity(adapter=self.trained.scale))
        extra = {"canary": to_extra(self.canary, learned, self.start)}
        publisher.publish(version, adapter, extra)
        return Subscriber(self.store, run)

    def load(self, run: str, adapter: dict[str, Tensor], learned: Logprobs) -> LoadReport:
        """Publish an adapter with the learner's logprobs. Load it, and check it with the canary."""
        version = self.engine.version + 1
        subscriber = self.publish(run, version, adapter, learned)
        return self.run(self.engine.load_version(subscriber, version, self.canary))

    def change(self, learned: Logprobs) -> canary_change.Change:
        """Compare how much the logprobs have changed since version 0 in the engine and the learner.

        `learned` holds the learner's present logprobs of the canary prompts.
        """
        return canary_change.change(learned, self.start, self.run(self.score()), self.engine_start)

    def ask(self, session: str, tokens: int = 24) -> GenerateRequest:
        """Return a request with the same question for every `session`."""
        sample = self.batch.items[0]
        ids = tuple(sample.turns[0].context_ids)
        image = self.batch.prompts[0][1][0]
        return GenerateRequest(ids, (image,), Sampling(2.0, 1.0, tokens, 5), session)


@pytest.fixture(scope="module")
def setup(seaweed: ObjectStore) -> Iterator[Setup]:
    processor = AutoProcessor.from_pretrained(POLICY)
    chat = ChatFormat(processor.tokenizer)
    canary, batch = two_canaries(chat)
    trained = TrainedAdapter.attach(POLICY, processor, canary, torch.bfloat16)
    with started(POLICY, CONFIG, chat, RANK) as (runner, engine):
        running = Running(runner, engine, chat, canary)
        before = runner.run(running.score())
        yield Setup(
            runner=runner,
            engine=engine,
            chat=chat,
            canary=canary,
            trained=trained,
            batch=batch,
            start=trained.logprobs(),
            engine_start=before,
            store=seaweed,
        )


def test_the_engine_plays_the_whole_update(setup: Setup) -> None:
    done = 0
    for until, size in STEPS.items():
        for _ in range(until - done):
            setup.trained.step(setup.batch, size)
        done = until
        learned = setup.trained.logprobs()
        report = setup.load("whole", setup.trained.published(), learned)
        found = setup.change(learned)
        print(until, found, found.tolerance, report)
        assert found.tolerance < LARGEST_TOLERANCE
        assert report.canary_slope == found.slope == pytest.approx(1, abs=0.05)


def test_a_version_that_is_not_played_is_a_mismatch(setup: Setup) -> None:
    """The engine loads an adapter that adds nothing, and then an adapter without the MLP layers.

    A check of the mean logprob difference would accept both, because rounding changes more.
    """
    learned, adapter = setup.trained.logprobs(), setup.trained.published()
    nothing = {name: tensor * (0 if name.endswith(UP) else 1) for name, tensor in adapter.items()}
    half = {name: tensor for name, tensor in adapter.items() if "self_attn" in name}
    for faulty in (nothing, half):
        version = setup.engine.version + 1
        subscriber = setup.publish("faulty", version, faulty, learned)
        setup.run(setup.engine.load_version(subscriber, version))
        found = setup.change(learned)
        print(found)
        with pytest.raises(CanaryMismatch, match=rf"version {version}: the engine plays"):
            canary_change.check(found, version)
    report = setup.load("faulty", adapter, learned)
    assert report.canary_slope == pytest.approx(1, abs=0.1)


def test_a_request_keeps_its_version_and_new_requests_take_the_new_one(setup: Setup) -> None:
    setup.trained.step(setup.batch, 1e-3)
    adapter = setup.trained.published()
    other = {name: tensor * (-3 if name.endswith(UP) else 1) for name, tensor in adapter.items()}
    first = setup.engine.version + 1
    subscriber = setup.publish("first", first, adapter, setup.start)
    setup.run(setup.engine.load_version(subscriber, first))
    alone = setup.run(setup.engine(setup.ask("alone")))
    subscriber = setup.publish("other", first + 1, other, setup.start)

    async def swap() -> tuple[list[Generation], list[Generation]]:
        old = [asyncio.create_task(setup.engine(setup.ask(f"old-{i}"))) for i in range(16)]
        await asyncio.sleep(0.05)
        await setup.engine.load_version(subscriber, first + 1)
        new = [asyncio.create_task(setup.engine(setup.ask(f"new-{i}"))) for i in range(16)]
        return await asyncio.gather(*old), await asyncio.gather(*new)

    old, new = setup.run(swap())
    after = setup.run(setup.engine(setup.ask("after")))
    assert {version for one in old for version in one.versions} == {first}
    assert {version for one in new for version in one.versions} == {first + 1}
    print(distance(after, alone), [distance(one, alone) for one in old])
    gap = distance(after, alone)
    assert gap > 0
    assert max(distance(one, alone) for one in old) < gap / 4
    assert max(distance(one, after) for one in new) < gap / 4


def test_an_outage_of_the_store_leaves_the_engine_as_it_is(setup: Setup) -> None:
    """The engine reads HEAD and the manifest, but the store refuses the adapter's bytes."""
    before = setup.engine.version
    setup.publish("outage", before + 1, setup.trained.published(), setup.start)
    with proxy(setup.store, retry_budget_s=0.2) as faults:
        faults.on(match="*.bin", method="GET", fault=Status(500))
        subscriber = Subscriber(faults.store, "outage")
        with pytest.raises(StoreError):
            setup.run(setup.engine.load_version(subscriber, before + 1))
        assert setup.engine.version == before
        setup.run(setup.engine(setup.ask("during the outage")))
        faults.clear()
        setup.run(setup.engine.load_version(subscriber, before + 1))
    assert setup.engine.version == before + 1


def test_versions_that_no_request_plays_are_removed(setup: Setup) -> None:
    adapter = setup.trained.published()
    for _ in range(3):
        version = setup.engine.version + 1
        subscriber = setup.publish("removed", version, adapter, setup.start)
        setup.run(setup.engine.load_version(subscriber, version))
    adapters = setup.engine._adapters
    assert adapters is not None
    directories = [*adapters._root.iterdir()]
    assert [path.name.partition("-")[0] for path in directories] == [f"v{setup.engine.version}"]
    assert directories[0].stat().st_mode & 0o077 == 0
    assert len(setup.run(setup.engine._llm.list_loras())) == 1


def test_adapters_that_the_engine_cannot_play_are_refused(setup: Setup) -> None:
    layer = "model.language_model.layers.0.self_attn.q_proj"
    width = setup.trained.model.get_submodule(layer).in_features
    tower = "model.visual.blocks.0.mlp.gate_proj"
    above, below = setup.trained.model.get_submodule(tower).weight.shape
    version = setup.engine.version
    wrong = {
        r"rank 16, but the engine was started for rank 8": pair(layer, width, width, 16),
        r"adapter in the vision tower \(model.visual": pair(tower, above, below, 4),
        r"does not fit the base policy": pair(layer, width, width + 2, 4),
    }
    for number, (reason, adapter) in enumerate(wrong.items(), version + 1):
        subscriber = setup.publish("wrong", number, adapter, setup.start)
        with pytest.raises(WeightsError, match=reason):
            setup.run(setup.engine.load_version(subscriber, number))
    whole = Publisher(setup.store, "whole")
    whole.publish(version + 1, {"lm_head.weight": torch.zeros(4, 4)})
    with pytest.raises(WeightsError, match=r"holds whole weights, but this engine plays adapters"):
        setup.run(setup.engine.load_version(Subscriber(setup.store, "whole"), version + 1))
    assert setup.engine.version == version
    assert setup.run(setup.engine(setup.ask("still"))).token_ids


def pair(layer: str, above: int, below: int, rank: int) -> dict[str, Tensor]:
    return {f"{layer}{DOWN}": torch.zeros(rank, below), f"{layer}{UP}": torch.zeros(above, rank)}


def distance(one: Generation, other: Generation) -> float:
    """Return the mean absolute logprob difference of two answers.

    The mean covers the tokens up to and including the first token that differs.
    """
    pairs = []
    for mine, theirs, a, b in zip(
        one.token_ids, other.token_ids, one.logprobs, other.logprobs, strict=False
    ):
        pairs.append(abs(a - b))
        if mine != theirs:
            break
    return math.fsum(pairs) / len(pairs)
