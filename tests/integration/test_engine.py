"""The engine on a tiny random Qwen2.5-VL: real vLLM, real SeaweedFS, transformers as the reference.

The engine computes in float32, which every processor does fast. test_engine_canary.py and
test_engine_tied.py load versions in bfloat16.
"""

import asyncio
import math
import multiprocessing
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration

from awares.batch import collate, policy_logprobs
from awares.chat import ChatFormat
from awares.crops import CropId
from awares.episode import Episode, EpisodeSpec, run_episode
from awares.families.qwen2_5_vl import QWEN2_5_VL
from awares.generate import FinishReason, Generate, GenerateRequest, Generation, Sampling
from awares.mini.policy import build_model, build_processor, save_policy
from awares.mini.tokenizer import train_tokenizer
from awares.protocol import format_request
from awares.sample import Sample
from awares_platform.config.engine import EngineConfig
from awares_platform.engine.canary import (
    Canary,
    CanaryMismatch,
    Logprobs,
    check,
    learner_logprobs,
    to_extra,
)
from awares_platform.engine.engine import Engine, EngineError
from awares_platform.store import ObjectStore
from awares_platform.weights import Identity, Manifest, Publisher, Subscriber, WeightsError
from awares_platform.weights.adapter import DOWN, UP, fold
from tests.integration.faulty import Dying
from tests.integration.running_engine import LIMITS, Running, scenes, started

pytestmark = [pytest.mark.integration, pytest.mark.slow]

CONFIG = EngineConfig(dtype="float32", kv_cache_gib=0.25, max_requests=32, load_timeout_s=20.0)
TOLERANCE = 0.01
"""Largest mean |dlogp| between the two implementations in float32."""


@dataclass(frozen=True)
class Setup(Running):
    """One engine, transformers' model of the same weights, and the model's canary logprobs."""

    policy: Path
    processor: Any
    model: Qwen2_5_VLForConditionalGeneration
    learner: Logprobs
    samples: tuple[Sample, ...]
    images: dict[str, Image.Image]

    def ask(self, index: int, sampling: Sampling) -> GenerateRequest:
        sample = self.samples[index % len(self.samples)]
        return GenerateRequest(
            self.chat.first_turn(sample.question),
            (self.images[sample.image],),
            sampling,
            f"ask-{index}",
        )


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory, seaweed: ObjectStore) -> Iterator[Setup]:
    tokenizer = train_tokenizer()
    policy = tmp_path_factory.mktemp("policy")
    chat = ChatFormat(tokenizer)
    model = sharpened(build_model(tokenizer, seed=0), chat.blocked_ids)
    save_policy(model, tokenizer, policy)
    model.float()  # Saving rounds the weights to bfloat16; the engine widens them again.
    samples, images = scenes(8)
    canary = Canary.build(samples[:4], images.__getitem__, chat, LIMITS, 0.5)
    processor = build_processor(tokenizer)
    learner = learner_logprobs(model, processor, canary)
    with started(policy, CONFIG, chat) as (runner, engine):
        yield Setup(
            runner, engine, chat, canary, policy, processor, model, learner, samples, images
        )


def sharpened(
    model: Qwen2_5_VLForConditionalGeneration, blocked: tuple[int, ...]
) -> Qwen2_5_VLForConditionalGeneration:
    """A random model that prefers the blocked ids, and whose output depends on every tensor.

    Freshly initialised norms and biases would leave the output as it is.
    """
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.3)
            elif "visual" in name:
                parameter.normal_(std=0.12)
        model.lm_head.weight[list(blocked)] *= 3.0
    return model.eval()


def published(
    setup: Setup,
    model: Qwen2_5_VLForConditionalGeneration,
    state: dict[str, Tensor],
    publisher: Publisher,
) -> int:
    """Publish `state` with the canary logprobs of `model`; return the version."""
    version = max(publisher.version or 0, setup.engine.version) + 1
    publisher.publish(version, state, {"canary": to_extra(setup.canary, expected(setup, model))})
    return version


def expected(setup: Setup, model: Qwen2_5_VLForConditionalGeneration) -> Logprobs:
    """The canary logprobs that transformers computes with `model`."""
    if model is setup.model:
        return setup.learner
    return learner_logprobs(model, setup.processor, setup.canary)


def moved(
    model: Qwen2_5_VLForConditionalGeneration, seed: int
) -> Qwen2_5_VLForConditionalGeneration:
    """Another model of the same shape, in which every weight differs."""
    torch.manual_seed(seed)
    other = Qwen2_5_VLForConditionalGeneration(model.config).eval()
    other.load_state_dict(
        {
            name: tensor + torch.randn_like(tensor) * 0.05
            for name, tensor in model.state_dict().items()
        }
    )
    return other


def errors(
    setup: Setup,
    model: Qwen2_5_VLForConditionalGeneration,
    episodes: list[Episode],
    turn: int,
    **sampling: Any,
) -> Tensor:
    """Engine minus transformers: logprobs of the tokens sampled in `turn` of every episode."""
    batch = collate(episodes, setup.images.__getitem__, setup.processor, LIMITS, 0.5)
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


async def play(setup: Setup, generate: Generate, sampling: Sampling, count: int) -> list[Episode]:
    """Play `count` episodes at the same time."""
    spec = EpisodeSpec(LIMITS, sampling=sampling)
    samples = [setup.samples[index % len(setup.samples)] for index in range(count)]
    runs = [
        run_episode(one, setup.images[one.image], generate, setup.chat, spec, f"{index}")
        for index, one in enumerate(samples)
    ]
    episodes = list(await asyncio.gather(*runs))
    assert not [episode.error for episode in episodes if episode.error]
    return episodes


class Asking:
    """The engine with a first turn that always asks for two crops, as a trained policy may."""

    def __init__(self, setup: Setup) -> None:
        self._engine = setup.engine
        self._request = setup.chat.target(format_request([CropId.TOP_LEFT, CropId.BOTTOM]))
        self._image = setup.chat.image_token_id

    async def __call__(self, request: GenerateRequest) -> Generation:
        if request.token_ids.count(self._image) > 1:
            return await self._engine(request)
        count = len(self._request)
        return Generation(self._request, (0.0,) * count, (0,) * count, FinishReason.STOP)


def test_logprobs_are_those_of_the_distribution_sampled_from(setup: Setup) -> None:
    """The logprobs hold after temperature and mask.

    A learner without the mask would miss the probability that the mask takes away.
    """
    episodes = setup.run(play(setup, setup.engine, Sampling(temperature=0.7, max_tokens=12), 32))
    masked = errors(
        setup, setup.model, episodes, 0, temperature=0.7, blocked_ids=setup.chat.blocked_ids
    )
    unmasked = errors(setup, setup.model, episodes, 0, temperature=0.7)
    print("engine - transformers", masked.abs().mean(), masked.mean(), "unmasked", unmasked.mean())
    assert masked.abs().mean() < TOLERANCE
    assert masked.mean().abs() < unmasked.mean().abs() / 4


def test_the_second_turn_sees_the_crops(setup: Setup) -> None:
    episodes = setup.run(play(setup, Asking(setup), Sampling(temperature=1.0, max_tokens=8), 32))
    assert [len(episode.turns) for episode in episodes] == [2] * 32
    assert all(len(episode.turns[1].views) == 2 for episode in episodes)
    assert (
        errors(setup, setup.model, episodes, 1, blocked_ids=setup.chat.blocked_ids).abs().mean()
        < TOLERANCE
    )


def test_placeholders_are_never_sampled_and_stop_tokens_are_kept(setup: Setup) -> None:
    async def sample() -> list[Generation]:
        return await asyncio.gather(
            *(setup.engine(setup.ask(index, Sampling(2.0, 1.0, 64, index))) for index in range(64))
        )

    generations = setup.run(sample())
    assert not set(setup.chat.blocked_ids) & {
        token for one in generations for token in one.token_ids
    }
    stopped = [one for one in generations if one.finish is FinishReason.STOP]
    assert stopped and all(one.token_ids[-1] in setup.chat.stop_ids for one in stopped)
    assert all(
        token not in setup.chat.stop_ids for one in generations for token in one.token_ids[:-1]
    )
    cut = [one for one in generations if one.finish is FinishReason.LENGTH]
    assert cut and all(len(one.token_ids) == 64 for one in cut)


def test_the_same_seed_samples_the_same(setup: Setup) -> None:
    first, second = (
        setup.run(setup.engine(setup.ask(0, Sampling(1.0, 0.9, 16, seed=7)))) for _ in range(2)
    )
    assert first.token_ids == second.token_ids


def test_greedy_sampling_takes_the_likeliest(setup: Setup) -> None:
    async def sample() -> list[Generation]:
        return await asyncio.gather(
            *(setup.engine(setup.ask(1, Sampling(1.0, 1.0, 1, seed))) for seed in range(48))
        )

    greedy = setup.run(setup.engine(setup.ask(1, Sampling(temperature=0.0, max_tokens=4))))
    assert greedy.logprobs[0] >= max(one.logprobs[0] for one in setup.run(sample())) - TOLERANCE


def test_a_prompt_that_does_not_fit_names_the_settings(setup: Setup) -> None:
    request = setup.ask(0, Sampling())
    long = GenerateRequest(request.token_ids * 60, request.images * 1, request.sampling, "long")
    with pytest.raises(EngineError, match=r"refused a prompt.*engine\.max_model_len is 1024"):
        setup.run(setup.engine(long))
    setup.run(setup.engine.check())


def test_versions_change_within_a_generation_and_the_canary_passes(
    setup: Setup, seaweed: ObjectStore
) -> None:
    publisher, subscriber = Publisher(seaweed, "engine"), Subscriber(seaweed, "engine")
    other = moved(setup.model, seed=1)
    before = setup.engine.version
    version = published(setup, other, dict(other.state_dict()), publisher)

    async def load_while_generating() -> tuple[list[Generation], Any]:
        sampling = Sampling(temperature=1.5, max_tokens=400)
        work = [
            asyncio.create_task(setup.engine(setup.ask(index, sampling))) for index in range(96)
        ]
        await asyncio.sleep(0.3)
        report = await setup.engine.load_version(subscriber, version, setup.canary)
        return await asyncio.gather(*work), report

    generations, report = setup.run(load_while_generating())
    print(report)
    assert setup.engine.version == version == report.version
    assert report.canary_dlogp < CONFIG.canary_bound / 2
    assert report.prefetched.hops == 1
    assert (
        0
        < report.prefetched.size
        < sum(tensor.numel() * tensor.itemsize for tensor in other.state_dict().values())
    )
    assert 0 < report.apply_s < report.pause_s
    assert {item for one in generations for item in one.versions} == {before, version}
    assert any(set(one.versions) == {before, version} for one in generations)
    assert all([*one.versions] == sorted(one.versions) for one in generations)

    episodes = setup.run(play(setup, setup.engine, Sampling(temperature=1.0, max_tokens=12), 8))
    assert (
        errors(setup, other, episodes, 0, blocked_ids=setup.chat.blocked_ids).abs().mean()
        < TOLERANCE
    )
    assert (
        errors(setup, setup.model, episodes, 0, blocked_ids=setup.chat.blocked_ids).abs().mean()
        > 2 * TOLERANCE
    )
    assert {one for episode in episodes for one in episode.turns[0].versions} == {version}


@pytest.mark.parametrize(
    "tensor",
    [
        "lm_head.weight",
        "model.language_model.embed_tokens.weight",
        "model.language_model.layers.2.self_attn.k_proj.weight",
        "model.language_model.layers.1.mlp.up_proj.weight",
        "model.language_model.layers.3.post_attention_layernorm.weight",
        "model.language_model.norm.weight",
        "model.visual.patch_embed.proj.weight",
        "model.visual.blocks.1.attn.qkv.weight",
        "model.visual.merger.mlp.2.weight",
    ],
)
def test_the_canary_tells_one_wrong_tensor(setup: Setup, seaweed: ObjectStore, tensor: str) -> None:
    """Load the version without a canary, so that the engine survives; then compare logprobs."""
    publisher, subscriber = Publisher(seaweed, "wrong"), Subscriber(seaweed, "wrong")
    state = dict(setup.model.state_dict())
    state[tensor] = state[tensor].flip(0) if state[tensor].ndim > 1 else state[tensor].roll(1)
    version = published(setup, setup.model, state, publisher)

    async def measure() -> float:
        await setup.engine.load_version(subscriber, version)
        measured = await setup.score()
        return check(setup.canary, subscriber.manifest(version), measured, math.inf)

    value = setup.run(measure())
    print(tensor, value)
    assert value > CONFIG.canary_bound


def test_an_adapter_alone_is_folded_into_the_policy_that_the_engine_was_started_with(
    setup: Setup, seaweed: ObjectStore
) -> None:
    publisher = Publisher(seaweed, "adapter", identity=Identity(adapter=0.5))
    subscriber = Subscriber(seaweed, "adapter")
    folded = moved(setup.model, seed=0)
    folded.load_state_dict(setup.model.state_dict())
    layers = {
        name: module
        for name, module in folded.named_modules()
        if name.endswith(("q_proj", "down_proj")) and "visual" not in name
    }
    for step in range(2):
        adapter: dict[str, Tensor] = {}
        for name, module in layers.items():
            weight = setup.model.get_submodule(name).weight
            adapter[f"{name}{DOWN}"] = torch.randn(2, weight.shape[1]) * 0.3
            adapter[f"{name}{UP}"] = torch.randn(weight.shape[0], 2) * 0.3
            module.weight.data = fold(
                weight.data, adapter[f"{name}{DOWN}"], adapter[f"{name}{UP}"], 0.5
            )
        version = published(setup, folded, adapter, publisher)
        report = setup.run(setup.engine.load_version(subscriber, version, setup.canary))
        print("adapter", step, report.canary_dlogp)
        assert (report.canary_dlogp or 0) < CONFIG.canary_bound
        with pytest.raises(CanaryMismatch):
            check(
                setup.canary,
                replace_canary(subscriber.manifest(version), setup.canary, setup.learner),
                setup.run(setup.score()),
                CONFIG.canary_bound,
            )
    assert report.prefetched.size < 50_000


def replace_canary(manifest: Manifest, canary: Canary, logprobs: Any) -> Manifest:
    return replace(manifest, extra={"canary": to_extra(canary, logprobs)})


def test_weights_that_were_trained_on_other_pixels_are_refused(
    setup: Setup, seaweed: ObjectStore
) -> None:
    publisher, subscriber = (
        Publisher(seaweed, "pixels", identity=Identity(processor="5d1c")),
        Subscriber(seaweed, "pixels"),
    )
    version = published(setup, setup.model, dict(setup.model.state_dict()), publisher)
    with pytest.raises(
        WeightsError, match=r"belongs to a policy with another image processor \(5d1c\)"
    ):
        setup.run(setup.engine.load_version(subscriber, version))
    assert len(setup.run(setup.engine(setup.ask(0, Sampling(max_tokens=4)))).token_ids) > 0


def test_a_damaged_version_leaves_the_engine_as_it_was(setup: Setup, seaweed: ObjectStore) -> None:
    publisher, subscriber = Publisher(seaweed, "damaged"), Subscriber(seaweed, "damaged")
    before = setup.engine.version
    version = published(setup, setup.model, dict(setup.model.state_dict()), publisher)
    key = f"runs/damaged/weights/v{version:08d}/e1-a-r00000-00000.bin"
    data = bytearray(seaweed.get(key))
    data[100_000] ^= 1
    seaweed.put(key, bytes(data))
    with pytest.raises(WeightsError, match=rf"version {version}.*asked the writer for an anchor"):
        setup.run(setup.engine.load_version(subscriber, version))
    generation = setup.run(setup.engine(setup.ask(0, Sampling(max_tokens=4))))
    assert set(generation.versions) == {before}


def test_a_version_of_another_model_is_refused(setup: Setup, seaweed: ObjectStore) -> None:
    publisher, subscriber = Publisher(seaweed, "other"), Subscriber(seaweed, "other")
    state = dict(setup.model.state_dict())
    state["lm_head.weight"] = state["lm_head.weight"][:-1]
    del state["model.visual.merger.mlp.2.bias"]
    version = published(setup, setup.model, state, publisher)
    missing = r"1 missing: visual\.merger\.mlp\.2\.bias; 1 of another shape"
    with pytest.raises(WeightsError, match=rf"another model than the engine's.*{missing}"):
        setup.run(setup.engine.load_version(subscriber, version))
    setup.run(setup.engine(setup.ask(0, Sampling(max_tokens=4))))


def test_a_mismatch_poisons_the_engine(setup: Setup, seaweed: ObjectStore) -> None:
    publisher, subscriber = Publisher(seaweed, "mismatch"), Subscriber(seaweed, "mismatch")

    async def load_what_the_learner_does_not_have() -> tuple[list[Any], float]:
        engine = await Engine.start(
            setup.policy, CONFIG, setup.chat, family=QWEN2_5_VL, limits=LIMITS
        )
        try:
            right = published(setup, setup.model, dict(setup.model.state_dict()), publisher)
            report = await engine.load_version(subscriber, right, setup.canary)
            other = moved(setup.model, seed=2)
            wrong = published(setup, setup.model, dict(other.state_dict()), publisher)
            sampling = Sampling(1.5, 1.0, 900)
            work = [asyncio.create_task(engine(setup.ask(index, sampling))) for index in range(64)]
            await asyncio.sleep(0.1)
            with pytest.raises(
                CanaryMismatch, match=rf"version {wrong}: mean .dlogp. .* above the bound 0\.06"
            ):
                await engine.load_version(subscriber, wrong, setup.canary)
            with pytest.raises(EngineError, match="restart the engine"):
                await engine(setup.ask(0, Sampling()))
            with pytest.raises(EngineError, match="restart the engine"):
                await engine.check()
            return await asyncio.gather(*work, return_exceptions=True), report.canary_dlogp or 0.0
        finally:
            await engine.stop()

    ended, right = setup.run(load_what_the_learner_does_not_have())
    assert right < CONFIG.canary_bound / 2
    assert any(isinstance(one, EngineError) for one in ended)
    assert all(isinstance(one, EngineError | Generation) for one in ended)


def test_a_dead_engine_says_so_and_leaves_nothing_behind(setup: Setup) -> None:
    before = {child.pid for child in multiprocessing.active_children()}

    async def kill() -> None:
        engine = await Engine.start(
            setup.policy, CONFIG, setup.chat, family=QWEN2_5_VL, limits=LIMITS
        )
        work = asyncio.create_task(engine(setup.ask(0, Sampling(1.5, 1.0, 900))))
        await asyncio.sleep(0.1)
        for child in multiprocessing.active_children():
            if child.pid not in before:
                child.kill()
        with pytest.raises(EngineError, match="restart it"):
            await work
        with pytest.raises(EngineError, match="restart it"):
            await engine.check()
        await engine.stop()

    setup.run(kill())
    assert {child.pid for child in multiprocessing.active_children()} <= before


def test_too_little_memory_for_one_sequence_names_the_settings(setup: Setup) -> None:
    small = CONFIG.model_copy(update={"kv_cache_gib": 0.0001})
    named = r"engine\.kv_cache_gib is 0\.0001.*engine\.max_model_len 1024"
    with pytest.raises(EngineError, match=f"no memory for the KV cache: {named}"):
        setup.run(Engine.start(setup.policy, small, setup.chat, family=QWEN2_5_VL, limits=LIMITS))


def test_a_slow_start_is_given_up(setup: Setup) -> None:
    before = {child.pid for child in multiprocessing.active_children()}
    hasty = CONFIG.model_copy(update={"start_timeout_s": 0.5})
    with pytest.raises(EngineError, match=r"not up after 0\.5 s; raise engine\.start_timeout_s"):
        setup.run(Engine.start(setup.policy, hasty, setup.chat, family=QWEN2_5_VL, limits=LIMITS))
    deadline = time.monotonic() + 60
    while {child.pid for child in multiprocessing.active_children()} != before:
        assert time.monotonic() < deadline, "the abandoned engine lives on"
        time.sleep(0.2)


def test_an_engine_that_dies_while_it_applies_a_version_says_so(
    setup: Setup, seaweed: ObjectStore
) -> None:
    """The last test of the file, because it ends the engine. test_grpo.py replaces its actor."""
    publisher = Publisher(seaweed, "dying")
    dying = Dying(seaweed, "dying", "model.language_model.layers.1.mlp.down_proj.weight")
    other = moved(setup.model, seed=3)  # An engine reads only the tensors that differ from its own.
    version = published(setup, setup.model, dict(other.state_dict()), publisher)
    before = setup.engine.version

    async def generate() -> None:
        while True:
            await setup.engine(setup.ask(0, Sampling(1.5, 1.0, 100)))

    async def die() -> None:
        work = asyncio.create_task(generate())
        await asyncio.sleep(0.1)
        with pytest.raises(EngineError):
            await setup.engine.load_version(dying, version)
        with pytest.raises(EngineError):
            await work
        with pytest.raises(EngineError, match="restart"):
            await setup.engine.check()

    setup.run(die())
    assert setup.engine.version == before
