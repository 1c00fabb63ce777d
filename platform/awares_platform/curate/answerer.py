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
from awares_platform.curate.answered_rows import encode_answers, read_answers
from awares_platform.curate.label_shard import Columns
from awares_platform.curate.losses import LossReports
from awares_platform.data.dataset import Images
from awares_platform.data.rows import decode_rows
from awares_platform.method.answers import Answers, answer_both
from awares_platform.method.environment import base_prompt, system_prompt, vision_limits
from awares_platform.method.family import model_family
from awares_platform.runtime.watch import (
    ENGINE_MARGIN,
    FailureRate,
    PartLost,
    guarded,
    restarting,
    watch,
)
from awares_platform.runtime.watchdog import watchdog
from awares_platform.store import ObjectStore
from awares_platform.store.errors import LaunchError

if TYPE_CHECKING:
    from awares_platform.engine.engine import Engine


class Answerer:
    """Adds the low-resolution and the full-resolution answer to each sample of a shard.

    A batch has these columns:

    - "key": store key of the shard
    - "rows": parquet file of the shard, to which the answers are added
    - "answers": store key of the answers, which a later curation can reuse
    - "failure", in the result only: a pickled AwaresError, or empty
    """

    def __init__(self, config: PlatformConfig, reports: LossReports) -> None:
        self._config, self._reports = config, reports
        self._lost_too_often = reports.lost_before()
        self._store = ObjectStore.from_config(config.store)
        self._images = Images.of(self._store, config.data)
        self._limit = asyncio.Semaphore(config.curate.in_flight)
        self._loop = asyncio.new_event_loop()
        self._engine: Engine | None = None
        self._losses = FailureRate(config.curate.engine_restarts)

    def __call__(self, batch: Columns) -> Columns:
        samples = decode_rows(batch["rows"][0], str(batch["key"][0])).samples
        try:
            if self._lost_too_often:
                raise LaunchError(self._lost_too_often)
            with watchdog(self._config.run.hang_timeout_s):
                rows = self._answered(samples, str(batch["answers"][0]))
        except AwaresError as error:
            # Ray Data would wrap a raised error in long tracebacks.
            return {**batch, "failure": np.array([pickle.dumps(error)], dtype=object)}
        return {
            **batch,
            "rows": np.array([rows], dtype=object),
            "failure": np.array([b""], dtype=object),
        }

    def _answered(self, samples: Sequence[Sample], key: str) -> bytes:
        """Return the shard with its answers, and store it at `key` if any answer is new."""
        earlier = read_answers(self._store, key, samples)
        asked = [sample for sample, known in zip(samples, earlier, strict=True) if known is None]
        new = iter(self._asked(asked) if asked else ())
        rows = encode_answers([known or next(new) for known in earlier])
        if asked:
            self._store.put(key, rows)
        return rows

    def _asked(self, samples: Sequence[Sample]) -> list[Answers]:
        """Ask the engine about the samples. If the engine is lost, start another one."""
        return restarting(
            lambda: self._loop.run_until_complete(self._attempt(samples)),
            self._losses,
            "curate.engine_restarts",
            self._reports.tell,
            "the finished shards",
        )

    async def _attempt(self, samples: Sequence[Sample]) -> list[Answers]:
        """Answer the samples. Raises PartLost if the engine dies or hangs."""
        from awares_platform.engine.launch import EngineError

        engine = self._engine = self._engine or await self._start()
        limit_s = self._config.run.hang_timeout_s
        pings = watch("the engine", lambda: engine.ping(limit_s), limit_s * ENGINE_MARGIN)
        try:
            return await guarded(self._answer(engine, samples), pings)
        except (EngineError, PartLost) as error:
            self._engine = None
            await engine.stop()
            raise PartLost(f"the answerer has lost its engine: {error}") from error

    async def _answer(self, engine: "Engine", samples: Sequence[Sample]) -> list[Answers]:
        try:
            return await answer_both(
                self._config.method,
                self._family,
                self._config.curate.max_tokens,
                samples,
                self._images,
                engine,
                self._chat,
                self._limit,
                self._config.engine.max_model_len,
                self._policy_chat,
            )
        finally:
            # If the engine is dead, its answers are useless. `check` then raises EngineError, and
            # another engine answers the same samples.
            await engine.check()

    async def _start(self) -> "Engine":
        """Start the engine, and return it.

        The constructor does not start the engine, because the driver never sees an error that the
        constructor of an actor raises.
        """
        from awares_platform.engine.engine import Engine
        from awares_platform.training.policy import load_processor
        from awares_platform.training.source import resolve

        config = self._config
        store, method = self._store, config.method
        self._family = family = model_family(config.policy)
        policy = resolve(store, config.run.name, "base", config.policy.base, family)
        processor = load_processor(policy, family, method.min_pixels, method.max_pixels)
        prompt = base_prompt(method, processor.tokenizer, family)
        self._chat, self._policy_chat = (
            ChatFormat(processor.tokenizer, one, family.chat)
            for one in (prompt, system_prompt(method))
        )
        return await Engine.start(
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
