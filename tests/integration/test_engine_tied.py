"""Tests that a running engine loads weights of a policy with a tied output head.

A tied output head shares its tensor with the embedding. Transformers computes the expected
logprobs.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration

from awares.chat import ChatFormat
from awares.generate import GenerateRequest, Sampling
from awares.mini.policy import build_config, build_processor, save_policy
from awares.mini.tokenizer import train_tokenizer
from awares_platform.config.engine import EngineConfig
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
from awares_platform.weights import Publisher, Subscriber, WeightsError
from tests.integration.faulty import Breaking
from tests.integration.running_engine import LIMITS, Running, scenes, started
from tests.integration.training_step import first_step

pytestmark = [pytest.mark.integration, pytest.mark.slow]

CONFIG = EngineConfig(dtype="bfloat16", kv_cache_gib=0.25, max_requests=32)
STEP = 0.05
"""The size of the training step as a fraction of each tensor's root mean square."""
EMBEDDING, HEAD = "model.language_model.embed_tokens.weight", "lm_head.weight"


@dataclass(frozen=True)
class Setup(Running):
    """An engine whose policy has a tied output head, with a publisher and a subscriber.

    `batch` has the answers from which the tests compute a training step.
    """

    processor: Any
    batch: Canary
    publisher: Publisher
    subscriber: Subscriber

    def publish(self, state: dict[str, Tensor], learner: Logprobs) -> int:
        version = (self.publisher.version or 0) + 1
        self.publisher.publish(version, state, {"canary": to_extra(self.canary, learner)})
        return version

    def logprobs(self, model: Any) -> Logprobs:
        return learner_logprobs(model, self.processor, self.canary)


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory, seaweed: ObjectStore) -> Iterator[Setup]:
    tokenizer = train_tokenizer()
    policy: Path = tmp_path_factory.mktemp("policy")
    save_policy(model(seed=0), tokenizer, policy)
    chat = ChatFormat(tokenizer)
    samples, images = scenes(12)
    canary, batch = (
        Canary.build(some, images.__getitem__, chat, LIMITS, 0.5)
        for some in (samples[:4], samples[4:])
    )
    bus = Publisher(seaweed, "tied"), Subscriber(seaweed, "tied")
    with started(policy, CONFIG, chat) as (runner, engine):
        yield Setup(runner, engine, chat, canary, build_processor(tokenizer), batch, *bus)


def model(seed: int, *, tied: bool = True) -> Qwen2_5_VLForConditionalGeneration:
    """Return a model with random weights.

    If `tied` is true, the output head and the embedding are the same tensor.
    """
    config = build_config(train_tokenizer())
    config.tie_word_embeddings = config.text_config.tie_word_embeddings = tied
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(config).eval()
    return model.to(torch.bfloat16)  # pyright: ignore[reportArgumentType]


def exported(policy: Any) -> dict[str, Tensor]:
    """Return the weights as a checkpoint stores them. A shared tensor appears only once."""
    return {name: tensor.detach().clone() for name, tensor in policy.named_parameters()}


def test_a_tied_policy_computes_what_was_published(setup: Setup) -> None:
    """Version 1 changes all tensors, version 2 only the embedding, and version 3 all others."""
    first, second = model(1), model(2)
    steps = [exported(first), {**exported(first), EMBEDDING: exported(second)[EMBEDDING]}]
    steps.append({**exported(second), EMBEDDING: steps[1][EMBEDDING]})
    assert HEAD not in steps[0]
    for state in steps:
        reference = model(0)
        reference.load_state_dict(state, strict=False)
        version = setup.publish(state, setup.logprobs(reference))
        report = setup.run(setup.engine.load_version(setup.subscriber, version, setup.canary))
        print("tied", report)
        assert 0 < (report.canary_dlogp or math.nan) < CONFIG.canary_bound / 2


@pytest.mark.parametrize("stale", [HEAD, EMBEDDING])
def test_one_of_the_two_left_behind_is_a_mismatch(setup: Setup, stale: str) -> None:
    """The head or the embedding differs by one training step between engine and learner.

    vLLM's own function that reloads a model does not notice a stale head.
    """
    now, learner = model(3), model(3, tied=False)
    step = first_step(model(3, tied=False), setup.processor, setup.batch)[stale]
    learner.load_state_dict(now.state_dict())
    with torch.no_grad():
        learner.get_parameter(stale).sub_(STEP * step)
    version = setup.publish(exported(now), setup.logprobs(learner))
    manifest = setup.subscriber.manifest(version)
    setup.run(setup.engine.load_version(setup.subscriber, version))
    measured = setup.run(setup.score())
    print(stale, check(setup.canary, manifest, measured, math.inf))
    with pytest.raises(CanaryMismatch):
        check(setup.canary, manifest, measured, CONFIG.canary_bound)


def test_a_version_that_names_both_must_hold_the_same_twice(setup: Setup) -> None:
    policy = model(4)
    both = {**exported(policy), HEAD: exported(policy)[EMBEDDING]}
    version = setup.publish(both, setup.logprobs(policy))
    report = setup.run(setup.engine.load_version(setup.subscriber, version, setup.canary))
    assert 0 < (report.canary_dlogp or math.nan) < CONFIG.canary_bound / 2

    untied = setup.publish({**both, HEAD: both[HEAD] * 1.01}, setup.logprobs(policy))
    named = r"lm_head\.weight differs from model\.language_model\.embed_tokens\.weight"
    with pytest.raises(WeightsError, match=rf"version {untied}: {named}"):
        setup.run(setup.engine.load_version(setup.subscriber, untied, setup.canary))
    setup.run(setup.engine.check())


def test_a_load_that_fails_half_way_ends_the_engine(setup: Setup, seaweed: ObjectStore) -> None:
    """This test is the last in the file, because it ends the engine."""
    policy = model(5)
    version = setup.publish(exported(policy), setup.logprobs(policy))
    breaking = Breaking(seaweed, "tied", "model.language_model.layers.2.mlp.up_proj.weight")
    before = setup.engine.version
    with pytest.raises(EngineError, match=rf"applying version {version} failed"):
        setup.run(setup.engine.load_version(breaking, version, setup.canary))
    assert setup.engine.version == before
    for work in (
        setup.engine(GenerateRequest(setup.chat.first_turn("digit?"), (), Sampling(), "s")),
        setup.engine.check(),
    ):
        with pytest.raises(
            EngineError, match=f"version {version} was not applied whole.*restart the engine"
        ):
            setup.run(work)
