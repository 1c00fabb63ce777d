"""Starts a real engine that all tests of one file can share."""

import asyncio
import hashlib
import io
import multiprocessing
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil
from PIL import Image

from awares.chat import ChatFormat
from awares.families.qwen2_5_vl import QWEN2_5_VL
from awares.mini.benchmark import generate_split
from awares.sample import Sample
from awares.tokens import VisionLimits
from awares_platform.config.engine import EngineConfig
from awares_platform.engine.canary import Canary, Logprobs, tails
from awares_platform.engine.engine import Engine

LIMITS = VisionLimits(min_pixels=28 * 28, max_pixels=1_605_632)
T = TypeVar("T")


@dataclass(frozen=True)
class Running:
    """An engine, the event loop that runs it, the policy's chat format and a canary.

    A test file can derive a class that adds reference values.
    """

    runner: asyncio.Runner
    engine: Engine
    chat: ChatFormat
    canary: Canary

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    async def score(self) -> Logprobs:
        """Compute and return the canary's logprobs with the engine's current weights."""
        return tails(
            await asyncio.gather(
                *(self.engine.score(ids, images) for ids, images in self.canary.prompts)
            ),
            self.canary,
        )


@contextmanager
def started(
    policy: Path, config: EngineConfig, chat: ChatFormat, lora_rank: int = 0
) -> Iterator[tuple[asyncio.Runner, Engine]]:
    with asyncio.Runner() as runner:
        engine = runner.run(
            Engine.start(
                policy,
                config,
                chat,
                seed=3,
                family=QWEN2_5_VL,
                limits=LIMITS,
                lora_rank=lora_rank,
            )
        )
        try:
            yield runner, engine
        finally:
            runner.run(engine.stop())


def scenes(count: int) -> tuple[tuple[Sample, ...], dict[str, Image.Image]]:
    """Return `count` questions of the test split, and their images keyed by SHA-256 hash."""
    pictures = {
        hashlib.sha256(data).hexdigest(): (data, sample)
        for data, sample in generate_split("test", count, seed=0)
    }
    images = {
        name: Image.open(io.BytesIO(data)).convert("RGB") for name, (data, _) in pictures.items()
    }
    return tuple(sample for _, sample in pictures.values()), images


def two_canaries(chat: ChatFormat) -> tuple[Canary, Canary]:
    """Return two canaries: 4 questions that check the engine, and 8 other questions to train on."""
    samples, images = scenes(12)
    check, train = (
        Canary.build(some, images.__getitem__, chat, LIMITS, 0.5)
        for some in (samples[:4], samples[4:])
    )
    return check, train


def engine_memory() -> int:
    """Return the resident memory of this process's only engine process, in bytes."""
    children = multiprocessing.active_children()
    engine = next(child for child in children if child.name.startswith("EngineCore"))
    return psutil.Process(engine.pid).memory_info().rss
