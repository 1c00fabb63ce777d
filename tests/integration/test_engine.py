"""Tests an engine that runs a tiny random Qwen2.5-VL on real vLLM, with weights from SeaweedFS.

Transformers computes the reference values, in float32. All tests in this file share one engine,
because an engine starts slowly.
"""

import asyncio
import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from awares.generate import FinishReason, GenerateRequest, Generation, Sampling
from awares_platform.engine.canary import CanaryMismatch, check, expected, to_extra
from awares_platform.engine.canary_change import change
from awares_platform.engine.engine import EngineError
from awares_platform.store import ObjectStore
from awares_platform.weights import Identity, Publisher, Subscriber, WeightsError
from awares_platform.weights.adapter import DOWN, UP, fold
from tests.integration.compared_episodes import Asking, distance, errors, play
from tests.integration.faulty import Dying
from tests.integration.random_policy import CONFIG, RandomPolicy, moved
from tests.integration.running_engine import Running, engine_memory, started

pytestmark = [pytest.mark.integration, pytest.mark.slow]
TOLERANCE = 0.01
"""The largest accepted mean absolute logprob difference between engine and transformers."""


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> RandomPolicy:
    return RandomPolicy.build(tmp_path_factory.mktemp("policy"))


@pytest.fixture(scope="module")
def setup(policy: RandomPolicy, seaweed: ObjectStore) -> Iterator[Running]:
    with started(policy.path, CONFIG, policy.chat) as (runner, engine):
        yield Running(runner, engine, policy.chat, policy.canary)


def test_logprobs_are_those_of_the_distribution_sampled_from(
    setup: Running, policy: RandomPolicy
) -> None:
    """The engine applies the temperature and the mask of blocked ids before it computes logprobs.

    Without the mask, a learner's logprobs are lower than the engine's.
    """
    episodes = setup.run(play(policy, setup.engine, Sampling(temperature=0.7, max_tokens=12), 32))
    masked = errors(
        policy, policy.model, episodes, 0, temperature=0.7, blocked_ids=setup.chat.blocked_ids
    )
    unmasked = errors(policy, policy.model, episodes, 0, temperature=0.7)
    print("engine - transformers", masked.abs().mean(), masked.mean(), "unmasked", unmasked.mean())
    assert masked.abs().mean() < TOLERANCE
    assert masked.mean().abs() < unmasked.mean().abs() / 4


def test_the_second_turn_sees_the_crops(setup: Running, policy: RandomPolicy) -> None:
    episodes = setup.run(
        play(policy, Asking(setup.engine, setup.chat), Sampling(temperature=1.0, max_tokens=8), 32)
    )
    assert [len(episode.turns) for episode in episodes] == [2] * 32
    assert all(len(episode.turns[1].views) == 2 for episode in episodes)
    assert distance(policy, policy.model, episodes, turn=1) < TOLERANCE


def test_placeholders_are_never_sampled_and_stop_tokens_are_kept(
    setup: Running, policy: RandomPolicy
) -> None:
    async def sample() -> list[Generation]:
        return await asyncio.gather(
            *(setup.engine(policy.ask(index, Sampling(2.0, 1.0, 64, index))) for index in range(64))
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


def test_the_same_seed_samples_the_same(setup: Running, policy: RandomPolicy) -> None:
    first, second = (
        setup.run(setup.engine(policy.ask(0, Sampling(1.0, 0.9, 16, seed=7)))) for _ in range(2)
    )
    assert first.token_ids == second.token_ids


def test_greedy_sampling_takes_the_likeliest(setup: Running, policy: RandomPolicy) -> None:
    async def sample() -> list[Generation]:
        return await asyncio.gather(
            *(setup.engine(policy.ask(1, Sampling(1.0, 1.0, 1, seed))) for seed in range(48))
        )

    greedy = setup.run(setup.engine(policy.ask(1, Sampling(temperature=0.0, max_tokens=4))))
    assert greedy.logprobs[0] >= max(one.logprobs[0] for one in setup.run(sample())) - TOLERANCE


def test_a_prompt_that_does_not_fit_names_the_settings(
    setup: Running, policy: RandomPolicy
) -> None:
    request = policy.ask(0, Sampling())
    long = GenerateRequest(request.token_ids * 60, request.images * 1, request.sampling, "long")
    with pytest.raises(EngineError, match=r"refused a prompt.*engine\.max_model_len is 1024"):
        setup.run(setup.engine(long))
    setup.run(setup.engine.check())


def test_a_caller_that_leaves_harms_no_later_request(setup: Running, policy: RandomPolicy) -> None:
    """Cancel requests while their images are prepared, and then send the same images again."""
    requests = [policy.pictured(index) for index in range(12)]

    async def leave_and_ask_again() -> list[Generation | BaseException]:
        leaving = [asyncio.create_task(setup.engine(one)) for one in requests]
        for task in leaving:
            await asyncio.sleep(0.01)
            task.cancel()
        left = await asyncio.gather(*leaving, return_exceptions=True)
        assert any(isinstance(one, asyncio.CancelledError) for one in left)
        again = (setup.engine(one) for one in requests)
        return await asyncio.gather(*again, return_exceptions=True)

    again = setup.run(leave_and_ask_again())
    assert [len(one.token_ids) if isinstance(one, Generation) else one for one in again] == [4] * 12


def test_a_refused_prompt_harms_no_later_request(setup: Running, policy: RandomPolicy) -> None:
    """vLLM refuses a prompt that is too long, but only after it has prepared the image."""
    request = policy.pictured(20)
    with pytest.raises(EngineError, match="refused a prompt"):
        setup.run(setup.engine(replace(request, token_ids=(*request.token_ids, *[7] * 600))))
    assert len(setup.run(setup.engine(request)).token_ids) == 4


def test_distinct_images_fill_the_view_cache_only(setup: Running, policy: RandomPolicy) -> None:
    """A preprocessed image takes 12 MB. vLLM's default cache of 4 GiB would keep all 24 images."""

    async def show(first: int, count: int) -> int:
        for index in range(first, first + count):
            await setup.engine(policy.pictured(index))
        return engine_memory()

    before = setup.run(show(100, 8))
    assert setup.run(show(200, 24)) - before < 100e6


def test_prompts_of_many_lengths_cost_no_memory(setup: Running, policy: RandomPolicy) -> None:
    """oneDNN caches kernels for each length. Its default of 1,024 kernels takes 300 MB here."""

    async def ask(lengths: Iterable[int]) -> int:
        for length in lengths:
            ids = tuple(20 + 31 * index * length % 97 for index in range(length))
            await setup.engine(GenerateRequest(ids, (), Sampling(max_tokens=1), f"{length}"))
        return engine_memory()

    # Measure after the KV cache has been full once, because its memory grows until then.
    before = setup.run(ask([1000] * 540))
    assert setup.run(ask(range(100, 800))) - before < 100e6


def test_the_second_turn_reuses_the_first(setup: Running, policy: RandomPolicy) -> None:
    first = policy.pictured(30)
    turn = setup.run(setup.engine(first))
    again = replace(first, token_ids=(*first.token_ids, *turn.token_ids))
    shown, block = len(first.token_ids) - 1 + 25 * 25, CONFIG.block_size
    reused = setup.run(setup.engine(again)).cached
    assert turn.cached == 0 and reused >= shown // block * block > 600


def test_a_caller_that_leaves_frees_its_place(setup: Running, policy: RandomPolicy) -> None:
    """Cancel twice as many requests as the engine decodes at once. Each asks for 900 tokens."""
    long = Sampling(temperature=1.0, max_tokens=900, min_tokens=900)

    async def leave() -> float:
        asked = asyncio.gather(*(setup.engine(policy.ask(one, long)) for one in range(64)))
        await asyncio.sleep(1)
        asked.cancel()
        started = time.monotonic()
        await setup.engine(policy.ask(0, Sampling(max_tokens=1)))
        return time.monotonic() - started

    assert setup.run(leave()) < 5


def test_versions_change_within_a_generation_and_the_canary_passes(
    setup: Running, policy: RandomPolicy, seaweed: ObjectStore
) -> None:
    publisher, subscriber = Publisher(seaweed, "engine"), Subscriber(seaweed, "engine")
    other = moved(policy.model, seed=1)
    before = setup.engine.version
    version = policy.publish(publisher, setup.engine, dict(other.state_dict()), other)

    async def load_while_generating() -> tuple[list[Generation], Any]:
        sampling = Sampling(temperature=1.5, max_tokens=400)
        work = [
            asyncio.create_task(setup.engine(policy.ask(index, sampling))) for index in range(96)
        ]
        await asyncio.sleep(0.3)
        report = await setup.engine.load_version(subscriber, version, setup.canary)
        return await asyncio.gather(*work), report

    generations, report = setup.run(load_while_generating())
    print(report)
    assert setup.engine.version == version == report.version
    assert report.canary_dlogp < CONFIG.canary_bound / 2
    assert report.prefetched.hops == 1
    full = sum(tensor.nbytes for tensor in other.state_dict().values())
    assert 0 < report.prefetched.size < full
    assert 0 < report.apply_s < report.pause_s
    assert {item for one in generations for item in one.versions} == {before, version}
    assert any(set(one.versions) == {before, version} for one in generations)
    assert all([*one.versions] == sorted(one.versions) for one in generations)

    episodes = setup.run(play(policy, setup.engine, Sampling(temperature=1.0, max_tokens=12), 8))
    assert distance(policy, other, episodes) < TOLERANCE
    assert distance(policy, policy.model, episodes) > 2 * TOLERANCE
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
def test_the_canary_tells_one_wrong_tensor(
    setup: Running, policy: RandomPolicy, seaweed: ObjectStore, tensor: str
) -> None:
    """The engine loads the version without a canary check. The test then compares the logprobs.

    A failed canary check would end the engine, and the later tests need this engine.
    """
    publisher, subscriber = Publisher(seaweed, "wrong"), Subscriber(seaweed, "wrong")
    state = dict(policy.model.state_dict())
    state[tensor] = state[tensor].flip(0) if state[tensor].ndim > 1 else state[tensor].roll(1)
    version = policy.publish(publisher, setup.engine, state)

    async def measure() -> float:
        await setup.engine.load_version(subscriber, version)
        measured = await setup.score()
        return check(setup.canary, subscriber.manifest(version), measured, math.inf)

    value = setup.run(measure())
    print(tensor, value)
    assert value > CONFIG.canary_bound


def test_an_adapter_alone_is_folded_into_the_policy_that_the_engine_was_started_with(
    setup: Running, policy: RandomPolicy, seaweed: ObjectStore
) -> None:
    publisher = Publisher(seaweed, "adapter", identity=Identity(adapter=0.5))
    subscriber = Subscriber(seaweed, "adapter")
    folded = moved(policy.model, seed=0)
    folded.load_state_dict(policy.model.state_dict())
    layers = {
        name: module
        for name, module in folded.named_modules()
        if name.endswith(("q_proj", "down_proj")) and "visual" not in name
    }
    unadapted = {"canary": to_extra(setup.canary, policy.learner)}
    for step in range(2):
        adapter: dict[str, Tensor] = {}
        for name, module in layers.items():
            weight = policy.model.get_parameter(f"{name}.weight")
            adapter[f"{name}{DOWN}"] = torch.randn(2, weight.shape[1]) * 0.3
            adapter[f"{name}{UP}"] = torch.randn(weight.shape[0], 2) * 0.3
            module.weight.data = fold(
                weight.data, adapter[f"{name}{DOWN}"], adapter[f"{name}{UP}"], 0.5
            )
        version = policy.publish(publisher, setup.engine, adapter, folded)
        report = setup.run(setup.engine.load_version(subscriber, version, setup.canary))
        print("adapter", step, report.canary_dlogp)
        assert (report.canary_dlogp or 0) < CONFIG.canary_bound
        with pytest.raises(CanaryMismatch):
            check(
                setup.canary,
                replace(subscriber.manifest(version), extra=unadapted),
                setup.run(setup.score()),
                CONFIG.canary_bound,
            )
    assert report.prefetched.size < 50_000


def test_a_small_update_is_folded_whole_although_the_checkpoint_is_in_bfloat16(
    setup: Running, policy: RandomPolicy, seaweed: ObjectStore
) -> None:
    """Most of this update would be lost if the engine added it to bfloat16 weights."""
    publisher = Publisher(seaweed, "small", identity=Identity(adapter=1.0))
    subscriber = Subscriber(seaweed, "small")
    folded = moved(policy.model, seed=0)
    folded.load_state_dict(policy.model.state_dict())
    layer = "model.language_model.layers.0.mlp.down_proj"
    weight = policy.model.get_parameter(f"{layer}.weight").data
    torch.manual_seed(1)
    down, up = torch.randn(2, weight.shape[1]), torch.randn(weight.shape[0], 2).sign() * 1e-5
    learned, measured = [], []
    for used in (torch.zeros_like(up), up):
        adapter = {f"{layer}{DOWN}": down, f"{layer}{UP}": used}
        folded.get_submodule(layer).weight.data = fold(weight, down, used, 1.0)
        version = policy.publish(publisher, setup.engine, adapter, folded)
        setup.run(setup.engine.load_version(subscriber, version, setup.canary))
        learned.append(expected(setup.canary, subscriber.manifest(version)))
        measured.append(setup.run(setup.score()))
    found = change(learned[1], learned[0], measured[1], measured[0])
    print(found)
    assert found.is_seen and found.slope == pytest.approx(1, abs=0.1)


def test_weights_that_were_trained_on_other_pixels_are_refused(
    setup: Running, policy: RandomPolicy, seaweed: ObjectStore
) -> None:
    publisher, subscriber = (
        Publisher(seaweed, "pixels", identity=Identity(processor="5d1c")),
        Subscriber(seaweed, "pixels"),
    )
    version = policy.publish(publisher, setup.engine)
    with pytest.raises(
        WeightsError, match=r"belongs to a policy with another image processor \(5d1c\)"
    ):
        setup.run(setup.engine.load_version(subscriber, version))
    assert len(setup.run(setup.engine(policy.ask(0, Sampling(max_tokens=4)))).token_ids) > 0


def test_a_damaged_version_leaves_the_engine_as_it_was(
    setup: Running, policy: RandomPolicy, seaweed: ObjectStore
) -> None:
    publisher, subscriber = Publisher(seaweed, "damaged"), Subscriber(seaweed, "damaged")
    before = setup.engine.version
    version = policy.publish(publisher, setup.engine)
    key = f"runs/damaged/weights/v{version:08d}/e1-a-r00000-00000.bin"
    data = bytearray(seaweed.get(key))
    data[100_000] ^= 1
    seaweed.put(key, bytes(data))
    with pytest.raises(WeightsError, match=rf"version {version}.*asked the writer for an anchor"):
        setup.run(setup.engine.load_version(subscriber, version))
    generation = setup.run(setup.engine(policy.ask(0, Sampling(max_tokens=4))))
    assert set(generation.versions) == {before}


def test_a_version_of_another_model_is_refused(
    setup: Running, policy: RandomPolicy, seaweed: ObjectStore
) -> None:
    publisher, subscriber = Publisher(seaweed, "other"), Subscriber(seaweed, "other")
    state = dict(policy.model.state_dict())
    state["lm_head.weight"] = state["lm_head.weight"][:-1]
    del state["model.visual.merger.mlp.2.bias"]
    version = policy.publish(publisher, setup.engine, state)
    missing = r"1 missing: visual\.merger\.mlp\.2\.bias; 1 of another shape"
    with pytest.raises(WeightsError, match=rf"another model than the engine's.*{missing}"):
        setup.run(setup.engine.load_version(subscriber, version))
    setup.run(setup.engine(policy.ask(0, Sampling(max_tokens=4))))


def test_an_engine_that_dies_while_it_applies_a_version_says_so(
    setup: Running, policy: RandomPolicy, seaweed: ObjectStore
) -> None:
    """This test is the last in the file, because it ends the engine."""
    publisher = Publisher(seaweed, "dying")
    dying = Dying(seaweed, "dying", "model.language_model.layers.1.mlp.down_proj.weight")
    # The engine reads only tensors that have changed, so this version changes every tensor.
    other = moved(policy.model, seed=3)
    version = policy.publish(publisher, setup.engine, dict(other.state_dict()))
    before = setup.engine.version

    async def generate() -> None:
        while True:
            await setup.engine(policy.ask(0, Sampling(1.5, 1.0, 100)))

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
