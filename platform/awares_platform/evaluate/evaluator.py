"""Defines the Ray actor that plays the evaluated policies, one after the other, on an engine."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from awares.chat import ChatFormat
from awares.sample import Sample
from awares.tokens import VisionLimits
from awares_platform.config import PlatformConfig
from awares_platform.data.dataset import Images
from awares_platform.engine.adapters import stays_adapter
from awares_platform.engine.canary import (
    Canary,
    Logprobs,
    check_fit,
    learner_logprobs,
    to_extra,
)
from awares_platform.engine.canary_samples import usable
from awares_platform.engine.engine import Engine, LoadReport
from awares_platform.engine.launch import EngineError
from awares_platform.evaluate.policies import POLICIES, Weights
from awares_platform.method.environment import base_prompt, system_prompt, vision_limits
from awares_platform.method.family import model_family
from awares_platform.method.play import Played, play
from awares_platform.runtime.watch import PartLost
from awares_platform.store import ObjectStore
from awares_platform.training import inputs, lora
from awares_platform.training.merge import check_complete
from awares_platform.training.policy import load_processor
from awares_platform.training.source import resolve, resolve_adapter
from awares_platform.weights.adapter import rank_in, read_peft
from awares_platform.weights.cadence import Cadence, Identity
from awares_platform.weights.checkpoint import Checkpoint
from awares_platform.weights.manifest import folder
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


@contextmanager
def _losing() -> Iterator[None]:
    """Raise PartLost if the block raises EngineError. The job then starts another evaluator."""
    try:
        yield
    except EngineError as error:
        raise PartLost(f"the evaluator has lost its engine: {error}") from error


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
        # The engine while it plays, or None while it starts or stops.
        self._playing: Engine | None = None

    async def ping(self) -> None:
        """Return when the engine has answered, or at once if it starts or stops.

        Raises PartLost if the engine is dead or hangs. A hung engine is killed.
        """
        if self._playing is not None:
            with _losing():
                await self._playing.ping(self._config.run.hang_timeout_s)

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
        self._base, self._base_logprobs = base, dict[str, Logprobs]()
        self._engine = await self._launch(base, 0)
        self._publisher, self._scale = self._claim(None), None
        self._subscriber = Subscriber(self._store, self._bus)

    async def load(self, weights: Weights, probes: Sequence[Sample]) -> LoadReport:
        """Load a trained policy into the engine, and check the engine with a canary.

        The method publishes the weights to the object store, and the engine loads them as in a
        rollout actor. If the policy has an adapter, the method publishes the adapter, and version 0
        of the engine is the policy that the adapter belongs to. Otherwise version 0 is the base
        policy. The method starts a new engine if the present one has another version 0.

        The canary uses the first usable samples in `probes`. Raises DataError if no probe is
        usable. Raises PolicyError if the adapter lacks a part of the training. Raises
        CanaryMismatch if the engine's logprobs of the canary, or their change since version 0,
        differ too much from transformers' logprobs. Raises PartLost if the engine dies meanwhile.
        """
        path, (start, adapter) = await self._directory(weights), await self._trained_from(weights)
        inputs.check(path, self._config.method)
        limits = vision_limits(self._config.method, self._family)
        ratio, chat = self._config.method.low_ratio, self._policy_chat
        samples = usable(probes, lambda sample: self._check_fit(sample, limits))
        canary = Canary.build(samples, self._images, chat, limits, ratio)
        if adapter is not None:
            await asyncio.to_thread(check_complete, start, adapter, path, self._family)
        extra = await asyncio.to_thread(self._expected, path, start, adapter, canary)
        rank = 0 if adapter is None else rank_in(adapter)
        rank = rank if stays_adapter(self._config.engine.dtype, rank) else 0
        if self._started != (start, rank):
            await self._stop()
            self._engine = await self._launch(start, rank)
        version = await asyncio.to_thread(self._publish, path, adapter, extra)
        with _losing():
            return await self._engine.load_version(self._subscriber, version, canary)

    async def _launch(self, policy: Path, rank: int) -> ColdEngine:
        """Start an engine for adapters of at most rank `rank`, or for none if `rank` is 0."""
        self._started = (policy, rank)
        engine = await ColdEngine.start(
            policy,
            self._config.engine,
            self._policy_chat,
            seed=self._config.run.seed,
            family=self._family,
            limits=vision_limits(self._config.method, self._family),
            lora_rank=rank,
        )
        self._playing = engine
        return engine

    async def _trained_from(self, weights: Weights) -> tuple[Path, Path | None]:
        """Return the directory of version 0, and the directory of the adapter or None."""
        run, base = self._config.run.name, self._config.policy.base
        found = await asyncio.to_thread(
            resolve_adapter, self._store, run, weights, base, self._family
        )
        return found or (self._base, None)

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

    def _expected(
        self, path: Path, start: Path, adapter: Path | None, canary: Canary
    ) -> dict[str, Any]:
        """Return the `extra` of a manifest, with canary logprobs that transformers computes.

        The policy is the whole policy in `path`, or `adapter` on the policy in `start`.
        """
        if adapter is None:
            before = self._base_logprobs.get(canary.digest)
            if before is None:
                before = self._logprobs(self._model(start), canary)
                self._base_logprobs[canary.digest] = before
            return {"canary": to_extra(canary, self._logprobs(self._model(path), canary), before)}
        model = self._model(start)
        lora.attach_trained(model, self._family, *read_peft(adapter))
        with lora.adapters_off(model):
            before = self._logprobs(model, canary)
        return {"canary": to_extra(canary, self._logprobs(model, canary), before)}

    def _model(self, path: Path) -> Any:
        dtype = getattr(torch, self._config.engine.dtype)
        model, _ = self._family.load_model(path, dtype=dtype, local_files_only=True)
        return model.eval()

    def _logprobs(self, model: Any, canary: Canary) -> Logprobs:
        return learner_logprobs(model, self._processor(self._base), canary)

    def _publish(self, path: Path, adapter: Path | None, extra: dict[str, Any]) -> int:
        """Publish `adapter`, or the policy in `path` if `adapter` is None. Return the version."""
        tensors, scale = (Checkpoint(path), None) if adapter is None else read_peft(adapter)
        dtype, current = getattr(torch, self._config.engine.dtype), self._family.current_name
        state = {current(name): tensor.to(dtype) for name, tensor in tensors.items()}
        if scale != self._scale:
            self._publisher, self._scale = self._claim(scale), scale
        version = max(self._publisher.version or 0, self._engine.version) + 1
        self._publisher.publish(version, state, extra)
        return version

    def _claim(self, scale: float | None) -> Publisher:
        """Return a publisher of adapters with this scale, or of whole weights if it is None."""
        identity, cadence = Identity(adapter=scale), Cadence(keep=1)
        return Publisher(self._store, self._bus, identity=identity, cadence=cadence)

    async def play(self, policy: str, samples: Sequence[Sample]) -> list[Played]:
        """Play the samples, evaluate.in_flight at a time. Return results in the same order.

        Raises PartLost if the engine dies meanwhile.
        """
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
        played = await play(samples, self._images, self._engine, chat, spec, limit)
        # The episodes of a dead engine are faults of the engine, and another engine plays them.
        await self.ping()
        return played

    async def stop(self) -> None:
        """Stop the engine, and delete the weights that `load` has published."""
        await self._stop()
        await asyncio.to_thread(self._store.delete_prefix, f"{folder(self._bus)}/")

    async def _stop(self) -> None:
        self._playing = None
        await self._engine.stop()
