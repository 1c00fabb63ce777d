"""Defines the Ray Data actor that answers questions at low and at full resolution."""

import asyncio
import pickle
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from awares.chat import ChatFormat
from awares.errors import AwaresError
from awares.sample import Sample
from awares_platform.config import PlatformConfig
from awares_platform.curate.label_shard import Columns
from awares_platform.data.dataset import Images
from awares_platform.data.rows import decode_rows, encode_rows
from awares_platform.method.answers import Answers, answer_both
from awares_platform.method.environment import base_prompt, system_prompt, vision_limits
from awares_platform.method.family import model_family
from awares_platform.store import ObjectStore

if TYPE_CHECKING:
    from awares_platform.engine.engine import Engine


class Answerer:
    """Adds the low-resolution and the full-resolution answer to each sample of a shard.

    Ray Data calls the actor with a batch of one shard. The column "key" contains the store key
    of the shard, and "rows" contains its parquet file. In the result, the parquet file has
    additional columns with the answers. The result also has a column "failure". It is empty, or a
    pickled AwaresError if the answers failed. The actor does not raise the error, because Ray Data
    would wrap it in long tracebacks. The engine runs on an event loop of the actor, from the first
    shard until the actor ends.
    """

    def __init__(self, config: PlatformConfig) -> None:
        self._config = config
        self._images = Images.of(ObjectStore.from_config(config.store), config.data)
        self._limit = asyncio.Semaphore(config.curate.in_flight)
        self._loop = asyncio.new_event_loop()
        self._engine: Engine | None = None

    def __call__(self, batch: Columns) -> Columns:
        samples = decode_rows(batch["rows"][0], str(batch["key"][0])).samples
        try:
            answers = self._loop.run_until_complete(self._answer(samples))
        except AwaresError as error:
            return {**batch, "failure": np.array([pickle.dumps(error)], dtype=object)}
        columns = {
            "low_answer": [one.low for one in answers],
            "full_answer": [one.full for one in answers],
            "confidence": [one.confidence for one in answers],
            "fault": [one.fault for one in answers],
        }
        rows = np.array([encode_rows(samples, columns)], dtype=object)
        return {**batch, "rows": rows, "failure": np.array([b""], dtype=object)}

    async def _answer(self, samples: Sequence[Sample]) -> list[Answers]:
        if self._engine is None:
            await self._start()
        assert self._engine is not None
        return await answer_both(
            self._config.method,
            self._family,
            self._config.curate.max_tokens,
            samples,
            self._images,
            self._engine,
            self._chat,
            self._limit,
            self._config.engine.max_model_len,
            self._policy_chat,
        )

    async def _start(self) -> None:
        """Start the engine.

        The constructor does not start the engine, because the driver never sees an error that the
        constructor of an actor raises.
        """
        from awares_platform.engine.engine import Engine
        from awares_platform.training.policy import load_processor
        from awares_platform.training.source import resolve

        config = self._config
        store, method = ObjectStore.from_config(config.store), config.method
        self._family = family = model_family(config.policy)
        policy = resolve(store, config.run.name, "base", config.policy.base, family)
        processor = load_processor(policy, family, method.min_pixels, method.max_pixels)
        prompt = base_prompt(method, processor.tokenizer, family)
        self._chat, self._policy_chat = (
            ChatFormat(processor.tokenizer, one, family.chat)
            for one in (prompt, system_prompt(method))
        )
        self._engine = await Engine.start(
            policy,
            config.engine,
            self._chat,
            seed=config.run.seed,
            family=family,
            limits=vision_limits(config.method, family),
        )

    def __del__(self) -> None:
        if self._engine is not None:
            self._loop.run_until_complete(self._engine.stop())
        self._loop.close()
