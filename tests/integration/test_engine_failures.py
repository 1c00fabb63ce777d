"""Tests engines that do not start, that die, or that have other weights than the learner."""

import asyncio
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from awares.families.qwen2_5_vl import QWEN2_5_VL
from awares.generate import Generation, Sampling
from awares_platform.config.engine import EngineConfig
from awares_platform.engine.canary import CanaryMismatch
from awares_platform.engine.engine import Engine, EngineError
from awares_platform.store import ObjectStore
from awares_platform.weights import Publisher, Subscriber
from tests.integration.random_policy import CONFIG, RandomPolicy, moved
from tests.integration.running_engine import LIMITS

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> RandomPolicy:
    return RandomPolicy.build(tmp_path_factory.mktemp("policy"))


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as running:
        yield running


async def start(policy: RandomPolicy, config: EngineConfig = CONFIG) -> Engine:
    """Start an engine for one test. Tests do not share this engine."""
    return await Engine.start(policy.path, config, policy.chat, family=QWEN2_5_VL, limits=LIMITS)


def test_a_mismatch_poisons_the_engine(
    runner: asyncio.Runner, policy: RandomPolicy, seaweed: ObjectStore
) -> None:
    publisher, subscriber = Publisher(seaweed, "mismatch"), Subscriber(seaweed, "mismatch")

    async def load_what_the_learner_does_not_have() -> tuple[list[Any], float]:
        engine = await start(policy)
        try:
            right = policy.publish(publisher, engine)
            report = await engine.load_version(subscriber, right, policy.canary)
            other = moved(policy.model, seed=2)
            wrong = policy.publish(publisher, engine, dict(other.state_dict()))
            sampling = Sampling(1.5, 1.0, 900)
            work = [asyncio.create_task(engine(policy.ask(index, sampling))) for index in range(64)]
            await asyncio.sleep(0.1)
            with pytest.raises(
                CanaryMismatch, match=rf"version {wrong}: mean .dlogp. .* above the bound 0\.06"
            ):
                await engine.load_version(subscriber, wrong, policy.canary)
            with pytest.raises(EngineError, match="restart the engine"):
                await engine(policy.ask(0, Sampling()))
            with pytest.raises(EngineError, match="restart the engine"):
                await engine.check()
            return await asyncio.gather(*work, return_exceptions=True), report.canary_dlogp or 0.0
        finally:
            await engine.stop()

    ended, right = runner.run(load_what_the_learner_does_not_have())
    assert right < CONFIG.canary_bound / 2
    assert any(isinstance(one, EngineError) for one in ended)
    assert all(isinstance(one, EngineError | Generation) for one in ended)


def test_a_dead_engine_says_so_and_leaves_nothing_behind(
    runner: asyncio.Runner, policy: RandomPolicy
) -> None:
    before = {child.pid for child in multiprocessing.active_children()}

    async def kill() -> None:
        engine = await start(policy)
        work = asyncio.create_task(engine(policy.ask(0, Sampling(1.5, 1.0, 900))))
        await asyncio.sleep(0.1)
        for child in multiprocessing.active_children():
            if child.pid not in before:
                child.kill()
        with pytest.raises(EngineError, match="restart it"):
            await work
        with pytest.raises(EngineError, match="restart it"):
            await engine.check()
        await engine.stop()

    runner.run(kill())
    assert {child.pid for child in multiprocessing.active_children()} <= before


def test_a_hung_engine_is_killed(runner: asyncio.Runner, policy: RandomPolicy) -> None:
    """SIGSTOP stops the engine's process, which then neither answers `ping` nor ends by itself."""
    before = {child.pid for child in multiprocessing.active_children()}

    async def stop() -> None:
        engine = await start(policy)
        work = asyncio.create_task(engine(policy.ask(0, Sampling(1.5, 1.0, 900))))
        await asyncio.sleep(0.1)
        await engine.ping(20.0)
        for child in multiprocessing.active_children():
            if child.pid not in before:
                os.kill(child.pid or 0, signal.SIGSTOP)
        with pytest.raises(EngineError, match=r"gave no answer for 1\.5 s; it is killed"):
            await engine.ping(1.5)
        with pytest.raises(EngineError, match="the engine hangs"):
            await work
        with pytest.raises(EngineError, match="the engine hangs"):
            await engine.ping(1.5)
        await engine.stop()

    runner.run(stop())
    assert {child.pid for child in multiprocessing.active_children()} <= before


def test_too_little_memory_for_one_sequence_names_the_settings(
    runner: asyncio.Runner, policy: RandomPolicy
) -> None:
    small = CONFIG.model_copy(update={"kv_cache_gib": 0.0001})
    named = r"engine\.kv_cache_gib is 0\.0001.*engine\.max_model_len 1024"
    with pytest.raises(EngineError, match=f"no memory for the KV cache: {named}"):
        runner.run(start(policy, small))


def test_a_slow_start_is_given_up(runner: asyncio.Runner, policy: RandomPolicy) -> None:
    before = {child.pid for child in multiprocessing.active_children()}
    hasty = CONFIG.model_copy(update={"start_timeout_s": 0.5})
    with pytest.raises(EngineError, match=r"not up after 0\.5 s; raise engine\.start_timeout_s"):
        runner.run(start(policy, hasty))
    deadline = time.monotonic() + 60
    while {child.pid for child in multiprocessing.active_children()} != before:
        assert time.monotonic() < deadline, "the engine's process runs after the start was given up"
        time.sleep(0.2)
