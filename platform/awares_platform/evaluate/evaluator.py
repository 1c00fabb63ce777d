"""Defines the Ray actor that runs the evaluated policies, one after the other, on an engine."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from awares.chat import ChatFormat
from awares.sample import Sample
from awares.tokens import VisionLimits
from awares_platform.config import PlatformConfig
from awares_platform.engine.canary import Canary, check_fit
from awares_platform.engine.canary_samples import usable
from awares_platform.engine.engine import Engine, LoadReport
from awares_platform.engine.exported_load import Exported, ExportedLoader
from awares_platform.engine.launch import EngineError
from awares_platform.evaluate.policies import POLICIES, Weights
from awares_platform.evaluate.questions import images_of, token_limits
from awares_platform.method.environment import base_prompt, system_prompt, vision_limits
from awares_platform.method.family import model_family
from awares_platform.method.play import Played, play
from awares_platform.runtime.watch import PartLost
from awares_platform.store import ObjectStore
from awares_platform.training import inputs
from awares_platform.training.policy import load_processor
from awares_platform.training.source import resolve, resolve_adapter


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
    """Lets the evaluated policies answer questions. Call `start` before `load` and `play`.

    Every public method is a coroutine, so that Ray can run many calls at once.
    """

    def __init__(self, config: PlatformConfig) -> None:
        self._config = config
        self._store = ObjectStore.from_config(config.store)
        self._images = images_of(config.evaluate, config.data, self._store)
        self._limit = asyncio.Semaphore(config.evaluate.in_flight)
        self._alone = asyncio.Semaphore(1)
        # The engine while it plays, or None while it starts or stops.
        self._playing: Engine | None = None

    async def ping(self) -> None:
        """Wait until the engine answers a ping. While the engine starts or stops, return at once.

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
        self._base, self._engine = base, await self._launch(base, 0)
        self._loader = ExportedLoader(
            self._store,
            f"{config.run.name}/evaluate",
            family,
            config.engine.dtype,
            self._processor(base),
        )

    async def load(self, weights: Weights, probes: Sequence[Sample]) -> LoadReport:
        """Load a trained policy into the engine, and check the engine with a canary.

        The canary compares the engine's logprobs with those of transformers, on some of the
        `probes`.

        Raises DataError if no probe is usable.
        Raises PolicyError if the training changed weights outside the adapter.
        Raises CanaryMismatch if the logprobs differ too much, and PartLost if the engine dies.
        """
        exported = await self._exported(weights)
        inputs.check(exported.policy, self._config.method)
        await asyncio.to_thread(exported.check, self._family)
        limits = vision_limits(self._config.method, self._family)
        ratio, chat = self._config.method.low_ratio, self._policy_chat
        samples = usable(probes, lambda sample: self._check_fit(sample, limits))
        canary = Canary.build(samples, self._images, chat, limits, ratio)
        rank = exported.engine_rank(self._config.engine.dtype)
        if self._started != (exported.start, rank):
            await self._stop()
            self._engine = await self._launch(exported.start, rank)
        with _losing():
            return await self._loader.load(self._engine, exported, canary)

    async def _launch(self, policy: Path, rank: int) -> ColdEngine:
        """Start an engine for LoRA adapters up to `rank`. If `rank` is 0, it takes no adapters."""
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

    async def _exported(self, weights: Weights) -> Exported:
        """Return the directories of the trained policy, its starting policy and its adapter."""
        path = await self._directory(weights)
        run, base = self._config.run.name, self._config.policy.base
        found = await asyncio.to_thread(
            resolve_adapter, self._store, run, weights, base, self._family
        )
        return Exported(path, *(found or (self._base, None)))

    async def _directory(self, weights: Weights) -> Path:
        run, base = self._config.run.name, self._config.policy.base
        return await asyncio.to_thread(resolve, self._store, run, weights, base, self._family)

    def _processor(self, path: Path) -> Any:
        method = self._config.method
        return load_processor(path, self._family, method.min_pixels, method.max_pixels)

    def _check_fit(self, sample: Sample, limits: VisionLimits) -> None:
        """Raise DataError if `sample` is too long for the canary."""
        size, ratio = self._images(sample.image).size, self._config.method.low_ratio
        context = self._config.engine.max_model_len
        check_fit(sample, size, self._policy_chat, limits, ratio, context)

    async def play(self, policy: str, samples: Sequence[Sample]) -> list[Played]:
        """Let `policy` answer the samples, and return the results in the same order.

        At most evaluate.in_flight samples run at once. Raises PartLost if the engine dies.
        """
        return await self._play(policy, samples, self._limit)

    async def play_alone(self, policy: str, samples: Sequence[Sample]) -> list[Played]:
        """Play one sample at a time with empty caches, so that latencies are comparable."""
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
        method, context = self._config.method, self._config.engine.max_model_len
        limits = token_limits(self._config.evaluate, samples)

        async def within(tokens: int) -> list[Played]:
            spec = evaluated.spec(method, self._family, tokens, context)
            chosen = [one for one, most in zip(samples, limits, strict=True) if most == tokens]
            return await play(chosen, self._images, self._engine, chat, spec, limit)

        parts = await asyncio.gather(*map(within, dict.fromkeys(limits)))
        found = {one.sample.sample_id: one for part in parts for one in part}
        played = [found[one.sample_id] for one in samples]
        # If the engine has died, the episodes are useless. `ping` then raises PartLost, and a new
        # evaluator plays the samples again.
        await self.ping()
        return played

    async def stop(self) -> None:
        """Stop the engine, and delete the weights that `load` has published."""
        await self._stop()
        await asyncio.to_thread(self._loader.delete)

    async def _stop(self) -> None:
        self._playing = None
        await self._engine.stop()
