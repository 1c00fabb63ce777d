"""Defines the actor with which `awares doctor` tests an engine.

The actor runs on a node where the grpo job would run a rollout actor.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from awares.chat import ChatFormat
from awares_platform.cli.doctor.finding import Finding
from awares_platform.cli.doctor.node import check_node
from awares_platform.cli.doctor.questions import two_canaries
from awares_platform.cli.doctor.trainee import policy_of
from awares_platform.config import PlatformConfig
from awares_platform.engine.adapters import stays_adapter
from awares_platform.engine.engine import Engine, LoadReport
from awares_platform.method.environment import system_prompt, vision_limits
from awares_platform.method.family import model_family
from awares_platform.store import ObjectStore
from awares_platform.training.policy import load_processor
from awares_platform.training.source import resolve
from awares_platform.weights import Subscriber


class Player:
    """A Ray actor with one engine. The actor also runs checks on the engine's node.

    These checks run in threads, because they would otherwise block the engine's event loop.
    """

    def __init__(self, config: PlatformConfig) -> None:
        self._config = config
        self._engine: Engine | None = None
        self._plays_adapters: bool | None = None

    async def node(self, store: ObjectStore) -> list[Finding]:
        """Check this engine's node."""
        gpus, base = self._config.grpo.rollout_gpus, self._config.policy.base
        return await asyncio.to_thread(check_node, base, gpus, store)

    async def call(self, check: Callable[..., list[Finding]], *arguments: Any) -> list[Finding]:
        """Run a check of the store or of an endpoint on this engine's node."""
        return await asyncio.to_thread(check, *arguments)

    async def start(self, adapter: bool) -> None:
        """Start an engine for adapters if `adapter` is true, and otherwise one for whole weights.

        Keep the running engine if it suits.

        Raises PolicyError if the policy cannot be used, and EngineError if the engine does not
        start.
        """
        config, method = self._config, self._config.method
        rank = policy_of(config.policy, adapter).lora_rank
        plays = stays_adapter(config.engine.dtype, rank)
        if self._engine is not None and plays == self._plays_adapters:
            return
        await self.stop()
        family = model_family(config.policy)
        store, base = ObjectStore.from_config(config.store), config.policy.base
        source: Path = await asyncio.to_thread(
            resolve, store, config.run.name, "base", base, family
        )
        processor = load_processor(source, family, method.min_pixels, method.max_pixels)
        chat = ChatFormat(processor.tokenizer, system_prompt(method), family.chat)
        self._canary, _ = two_canaries(chat, family, method)
        self._engine = await Engine.start(
            source,
            # Without compilation, the engine starts sooner.
            config.engine.model_copy(update={"enforce_eager": True}),
            chat,
            config.run.seed,
            family=family,
            limits=vision_limits(method, family),
            lora_rank=rank,
        )
        self._plays_adapters = plays

    async def load(self, store: ObjectStore, run: str, version: int) -> LoadReport:
        """Load a published version, and check it with the canary.

        Raises CanaryMismatch if the engine's logprobs differ too much from the learner's. After any
        error, the engine is stopped, and `start` must start it again.
        """
        assert self._engine is not None
        subscriber = Subscriber(store, run, threads=self._config.engine.threads)
        try:
            return await self._engine.load_version(subscriber, version, self._canary)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop the engine if it runs."""
        if self._engine is not None:
            await self._engine.stop()
        self._engine = None
