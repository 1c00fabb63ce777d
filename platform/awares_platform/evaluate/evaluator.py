"""Defines the Ray actor that plays the evaluated policies, one after the other, on an engine."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from awares.chat import ChatFormat
from awares.sample import Sample
from awares.tokens import VisionLimits
from awares_platform.config import PlatformConfig
from awares_platform.data.dataset import Images
from awares_platform.engine.canary import Canary, check_fit, learner_logprobs, to_extra
from awares_platform.engine.canary_samples import usable
from awares_platform.engine.engine import Engine
from awares_platform.engine.exported import Playable, playable
from awares_platform.evaluate.policies import POLICIES, Weights
from awares_platform.method.environment import base_prompt, system_prompt, vision_limits
from awares_platform.method.family import model_family
from awares_platform.method.play import Played, play
from awares_platform.store import ObjectStore
from awares_platform.training import inputs
from awares_platform.training.policy import load_processor
from awares_platform.training.source import resolve
from awares_platform.weights.cadence import Cadence
from awares_platform.weights.checkpoint import Checkpoint
from awares_platform.weights.manifest import Manifest, folder
from awares_platform.weights.publish import Publisher
from awares_platform.weights.subscribe import Subscriber


class ColdEngine(Engine):
    """An engine whose caches can be emptied between requests."""

    async def clear_caches(self) -> None:
        """Drop all cached prefixes, image embeddings and processed images.

        No request may be in flight.
        """
        await self._llm.reset_prefix_cache()
        await self._llm.reset_encoder_cache()
        await self._llm.reset_mm_cache()


class Evaluator:
    """Plays episodes of the evaluated policies. Call `start` first.

    Every public method is a coroutine, so that Ray can run many calls at once.
    """

    def __init__(self, config: PlatformConfig) -> None:
        self._config = config
        self._store = ObjectStore.from_config(config.store)
        self._images = Images.of(self._store, config.data)
        self._limit = asyncio.Semaphore(config.evaluate.in_flight)
        self._alone = asyncio.Semaphore(1)
        self._bus = f"{config.run.name}/evaluate"

    async def start(self) -> None:
        """Start the engine with the base policy."""
        config = self._config
        self._family = family = model_family(config.policy)
        base = await self._directory("base")
        tokenizer = self._processor(base).tokenizer
        prompts = (
            base_prompt(config.method, tokenizer, family),
            system_prompt(config.method),
        )
        self._base_chat, self._policy_chat = (
            ChatFormat(tokenizer, prompt, family.chat) for prompt in prompts
        )
        self._engine = await self._launch(Playable(base, None))
        self._publisher = Publisher(self._store, self._bus, cadence=Cadence(keep=1))
        self._subscriber = Subscriber(self._store, self._bus)

    async def load(self, weights: Weights, probes: Sequence[Sample]) -> None:
        """Load a trained policy into the engine, and check the engine with a canary.

        The method publishes the weights to the object store, and the engine loads them as in a
        rollout actor. If the new or the present policy is played with an adapter, the method starts
        a new engine instead. The canary uses the first usable samples in `probes`. Raises DataError
        if no probe is usable. Raises CanaryMismatch if the engine's logprobs of the canary differ
        too much from transformers' logprobs.
        """
        path = await self._directory(weights)
        inputs.check(path, self._config.method)
        limits = vision_limits(self._config.method, self._family)
        ratio, chat = self._config.method.low_ratio, self._policy_chat
        samples = usable(probes, lambda sample: self._check_fit(sample, limits))
        canary = Canary.build(samples, self._images, chat, limits, ratio)
        extra = await asyncio.to_thread(self._expected, path, canary)
        played = await self._playable(weights)
        if self._plays_adapter or played.adapter is not None:
            await self._engine.stop()
            self._engine = await self._launch(played)
            await self._engine.verify(canary, Manifest(0, 0, (), extra))
            return
        version = await asyncio.to_thread(self._publish, path, extra)
        await self._engine.load_version(self._subscriber, version, canary)

    async def _launch(self, played: Playable) -> ColdEngine:
        self._plays_adapter = played.adapter is not None
        return await ColdEngine.start(
            played.policy,
            self._config.engine,
            self._policy_chat,
            seed=self._config.run.seed,
            family=self._family,
            limits=vision_limits(self._config.method, self._family),
            adapter=played.adapter,
        )

    async def _playable(self, weights: Weights) -> Playable:
        run, base, dtype = (
            self._config.run.name,
            self._config.policy.base,
            self._config.engine.dtype,
        )
        return await asyncio.to_thread(
            playable, self._store, run, weights, base, self._family, dtype
        )

    async def _directory(self, weights: Weights) -> Path:
        run, base = self._config.run.name, self._config.policy.base
        return await asyncio.to_thread(resolve, self._store, run, weights, base, self._family)

    def _processor(self, path: Path) -> Any:
        method = self._config.method
        return load_processor(path, self._family, method.min_pixels, method.max_pixels)

    def _check_fit(self, sample: Sample, limits: VisionLimits) -> None:
        """Raise DataError if the canary cannot use `sample`."""
        size, ratio = self._images(sample.image).size, self._config.method.low_ratio
        context = self._config.engine.max_model_len
        check_fit(sample, size, self._policy_chat, limits, ratio, context)

    def _expected(self, path: Path, canary: Canary) -> dict[str, Any]:
        """Return the `extra` of a manifest, with canary logprobs that transformers computes."""
        dtype = getattr(torch, self._config.engine.dtype)
        model, _ = self._family.load_model(path, dtype=dtype, local_files_only=True)
        expected = learner_logprobs(model.eval(), self._processor(path), canary)
        return {"canary": to_extra(canary, expected)}

    def _publish(self, path: Path, extra: dict[str, Any]) -> int:
        dtype = getattr(torch, self._config.engine.dtype)
        current = self._family.current_name
        state = {current(name): tensor.to(dtype) for name, tensor in Checkpoint(path).items()}
        version = (self._publisher.version or 0) + 1
        self._publisher.publish(version, state, extra)
        return version

    async def play(self, policy: str, samples: Sequence[Sample]) -> list[Played]:
        """Play the samples, evaluate.in_flight at a time. Return results in the same order."""
        return await self._play(policy, samples, self._limit)

    async def play_alone(self, policy: str, samples: Sequence[Sample]) -> list[Played]:
        """Play the samples one at a time with empty caches, so that latencies are comparable."""
        played = []
        for sample in samples:
            await self._engine.clear_caches()
            played += await self._play(policy, [sample], self._alone)
        return played

    async def _play(
        self, policy: str, samples: Sequence[Sample], limit: asyncio.Semaphore
    ) -> list[Played]:
        evaluated = POLICIES[policy]
        chat = self._policy_chat if evaluated.may_call else self._base_chat
        config = self._config
        spec = evaluated.spec(
            config.method, self._family, config.evaluate.max_tokens, config.engine.max_model_len
        )
        return await play(samples, self._images, self._engine, chat, spec, limit)

    async def stop(self) -> None:
        """Stop the engine, and delete the weights that `load` has published."""
        await self._engine.stop()
        await asyncio.to_thread(self._store.delete_prefix, f"{folder(self._bus)}/")
