"""Tests that the canary check detects a family of modules that is one training step behind.

The mean absolute logprob difference depends on the family that is behind (CPU, bfloat16):

    none (exact)        0.030
    text families       0.33 to 2.3
    patch embedding     0.71
    merger              0.42
    vision mlp          0.39
    vision norms        0.079
    vision qkv          0.070
    vision output       0.032

The check fails above 0.06.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

import awares.mini
from awares.chat import ChatFormat
from awares.generate import GenerateRequest, Sampling
from awares_platform.config.engine import EngineConfig
from awares_platform.engine import canary_change
from awares_platform.engine.canary import (
    Canary,
    CanaryMismatch,
    Logprobs,
    check,
    learner_logprobs,
    to_extra,
)
from awares_platform.engine.engine import EngineError
from awares_platform.store import ObjectStore
from awares_platform.weights import Identity, Publisher, Subscriber, WeightsError
from awares_platform.weights.adapter import DOWN
from tests.integration.faulty import Bending
from tests.integration.running_engine import Running, started, two_canaries
from tests.integration.training_step import first_step, take_step

pytestmark = [pytest.mark.integration, pytest.mark.slow]

POLICY = Path(awares.mini.__file__).parent / "policy_weights"
CONFIG = EngineConfig(dtype="bfloat16", kv_cache_gib=0.25, max_requests=32, stage_on_device=True)
STEP = 0.05
STEPS = {1: 1e-2, 10: 3e-4, 100: 5e-5}
"""The slope is measured after 1, 10 and 100 steps. A value is the size of the steps before it.

A size is relative to a tensor's root mean square. The first step is large, so that it changes the
logprobs by more than rounding errors. engine/canary_change.py explains the slope.
"""
LARGEST_TOLERANCE = 0.15
"""The largest tolerance of the slope that a test accepts. Rounding errors widen the tolerance."""
FAMILIES = {
    "untied head": ("lm_head",),
    "embedding": ("embed_tokens",),
    "a third of qkv: q": ("self_attn.q_proj",),
    "a third of qkv: k": ("self_attn.k_proj",),
    "a third of qkv: v": ("self_attn.v_proj",),
    "o_proj": ("o_proj",),
    "half of gate_up: gate": ("language_model", "gate_proj"),
    "half of gate_up: up": ("language_model", "up_proj"),
    "down_proj": ("language_model", "down_proj"),
    "norms": ("language_model", "norm"),
    "vision patch embedding": ("patch_embed",),
    "vision qkv": ("attn.qkv",),
    "vision attention output": ("attn.proj",),
    "vision mlp": ("visual.blocks", "mlp"),
    "vision norms": ("visual", "norm"),
    "merger": ("merger.mlp",),
}
# This family needs a larger value than STEP. With STEP, the effect on the logprobs is smaller than
# the effect of rounding to bfloat16.
LARGER = {"vision attention output": 0.15}


@dataclass(frozen=True)
class Setup(Running):
    """An engine, the learner's weights, and the learner's logprobs of the canary prompts."""

    learner: Logprobs
    state: dict[str, Tensor]
    step: dict[str, Tensor]
    """The training step of each tensor."""
    batch: Canary
    """The answers on which the tests train."""
    publisher: Publisher
    subscriber: Subscriber

    def publish(self, state: dict[str, Tensor]) -> int:
        """Publish `state` with the learner's logprobs of the canary, and return the version."""
        version = (self.publisher.version or 0) + 1
        self.publisher.publish(version, state, {"canary": to_extra(self.canary, self.learner)})
        return version

    def measure(self, version: int) -> Logprobs:
        """Load `version` without a canary check, and return the engine's logprobs.

        A failed canary check would end the engine, and the later tests need this engine.
        """
        self.run(self.engine.load_version(self.subscriber, version))
        return self.run(self.score())


@pytest.fixture(scope="module")
def setup(seaweed: ObjectStore) -> Iterator[Setup]:
    processor = AutoProcessor.from_pretrained(POLICY)
    chat = ChatFormat(processor.tokenizer)
    canary, batch = two_canaries(chat)
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(POLICY, dtype=torch.bfloat16).eval()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    learner, step = learner_logprobs(model, processor, canary), first_step(model, processor, batch)
    bus = Publisher(seaweed, "canary"), Subscriber(seaweed, "canary")
    with started(POLICY, CONFIG, chat) as (runner, engine):
        yield Setup(runner, engine, chat, canary, learner, state, step, batch, *bus)


def test_the_engine_plays_the_whole_change_of_whole_weights(setup: Setup) -> None:
    """The learner trains float32 weights with Adam, on answers that are not in the canary.

    This test must run first, because it needs an engine with version 0.
    """
    processor = AutoProcessor.from_pretrained(POLICY)
    model, published = (
        Qwen2_5_VLForConditionalGeneration.from_pretrained(POLICY, dtype=torch.float32).eval()
        for _ in range(2)
    )
    start = learner_logprobs(published, processor, setup.canary)
    engine_start, done = setup.run(setup.score()), 0
    for until, size in STEPS.items():
        for _ in range(until - done):
            take_step(model, processor, setup.batch, size)
        done = until
        state = {name: tensor.to(torch.bfloat16) for name, tensor in model.state_dict().items()}
        published.load_state_dict(state)
        learned = learner_logprobs(published, processor, setup.canary)
        version = (setup.publisher.version or 0) + 1
        extra = {"canary": to_extra(setup.canary, learned, start)}
        setup.publisher.publish(version, state, extra)
        report = setup.run(setup.engine.load_version(setup.subscriber, version, setup.canary))
        found = canary_change.change(learned, start, setup.run(setup.score()), engine_start)
        print(until, found, report.canary_dlogp, report.canary_slope)
        assert found.tolerance < LARGEST_TOLERANCE
        assert report.canary_slope == found.slope == pytest.approx(1, abs=0.05)


def test_an_adapter_is_refused_where_it_would_be_rounded(
    setup: Setup, seaweed: ObjectStore
) -> None:
    publisher = Publisher(seaweed, "rounded", identity=Identity(adapter=2.0))
    version = setup.engine.version + 1
    publisher.publish(version, {f"layer{DOWN}": torch.zeros(2, 4)})
    with pytest.raises(WeightsError, match=r"is an adapter, and this engine in bfloat16"):
        setup.run(setup.engine.load_version(Subscriber(seaweed, "rounded"), version))


def test_the_exact_version_passes(setup: Setup) -> None:
    version = setup.publish(setup.state)
    report = setup.run(setup.engine.load_version(setup.subscriber, version, setup.canary))
    print("exact", report.canary_dlogp)
    assert 0 < (report.canary_dlogp or math.nan) < CONFIG.canary_bound


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_that_is_a_step_behind_is_a_mismatch(setup: Setup, family: str) -> None:
    stale = [name for name in setup.state if all(part in name for part in FAMILIES[family])]
    size = LARGER.get(family, STEP)
    behind = {
        name: (setup.state[name].float() - size * setup.step[name]).to(torch.bfloat16)
        for name in stale
    }
    version = setup.publish({**setup.state, **behind})
    manifest, measured = setup.subscriber.manifest(version), setup.measure(version)
    dlogp = check(setup.canary, manifest, measured, math.inf)
    print(f"{family}: {len(stale)} tensors, {size:.0%}: mean |dlogp| {dlogp:.3f}")
    with pytest.raises(CanaryMismatch, match=rf"version {version}: mean .dlogp."):
        check(setup.canary, manifest, measured, CONFIG.canary_bound)


def test_after_all_of_these_the_exact_version_still_passes(setup: Setup) -> None:
    version = setup.publish(setup.state)
    report = setup.run(setup.engine.load_version(setup.subscriber, version, setup.canary))
    assert 0 < (report.canary_dlogp or math.nan) < CONFIG.canary_bound
    print("exact", report)


def test_a_tensor_of_wrong_shape_ends_the_engine(setup: Setup, seaweed: ObjectStore) -> None:
    """This test is the last in the file, because it ends the engine.

    After a version was applied only partly, the engine must refuse requests and other versions.
    """
    version = setup.publish({name: tensor * 1.01 for name, tensor in setup.state.items()})
    bending = Bending(seaweed, "canary", "model.language_model.layers.2.mlp.down_proj.weight")
    before = setup.engine.version

    async def load() -> None:
        with pytest.raises(EngineError, match=f"applying version {version} failed"):
            await setup.engine.load_version(bending, version, setup.canary)
        with pytest.raises(
            EngineError, match=f"version {version} was not applied whole.*restart the engine"
        ):
            await setup.engine.check()
        with pytest.raises(EngineError, match="restart the engine"):
            await setup.engine(
                GenerateRequest(setup.chat.first_turn("digit?"), (), Sampling(), "s")
            )
        with pytest.raises(EngineError, match="restart the engine"):
            await setup.engine.load_version(setup.subscriber, before, setup.canary)
        # The engine's worker process also refuses to prefetch a version.
        with pytest.raises(Exception, match=f"version {version} was not applied whole"):
            await setup.engine._llm.collective_rpc(
                "begin_prefetch", args=(before, setup.subscriber.seen.to_bytes())
            )

    setup.run(load())
    assert setup.engine.version == before
