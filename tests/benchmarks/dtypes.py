"""Measures how long the engine takes in bfloat16, relative to float32, on this processor.

    PYTHONPATH=.:platform python tests/benchmarks/dtypes.py [--quick] [--json PATH]

Two engines take turns in the order A B B A, so a steady drift of the machine's speed cancels out.
"""

import argparse
import asyncio
import io
import os
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

from PIL import Image
from transformers import AutoProcessor

from awares.chat import ChatFormat
from awares.families.qwen2_5_vl import QWEN2_5_VL
from awares.generate import GenerateRequest, Sampling
from awares.mini import POLICY
from awares.mini.benchmark import generate_split
from awares.tokens import VisionLimits
from awares_platform.config.engine import EngineConfig
from awares_platform.engine.engine import Engine
from awares_platform.runtime.processor import resolved
from tests.benchmarks.command import Screen, parser, save

LIMITS = VisionLimits(min_pixels=28 * 28, max_pixels=1_605_632)
DTYPES = ("float32", "bfloat16")
IN_FLIGHT = 32
"""The number of concurrent requests, as in curation."""


async def benchmark(questions: int, blocks: int, tell: Any) -> dict[str, Any]:
    """Return the seconds of each window of `questions` questions, by data type.

    A block is four windows. Its ratio is the seconds of the second type over those of the first.
    """
    processor = AutoProcessor.from_pretrained(POLICY)
    chat = ChatFormat(processor.tokenizer)
    asked = requests(chat, (4 * blocks + 2) * questions)
    async with AsyncExitStack() as stack:
        engines = []
        for dtype in DTYPES:
            tell(f"starting the engine in {dtype}")
            config = EngineConfig(dtype=dtype, kv_cache_gib=0.25)
            engine = await Engine.start(
                Path(POLICY), config, chat, seed=0, family=QWEN2_5_VL, limits=LIMITS
            )
            engines.append(await stack.enter_async_context(engine))
        for engine in engines:
            tell("warming up")
            await answer(engine, list(islice(asked, questions)))
        seconds: tuple[list[float], list[float]] = ([], [])
        for number in range(4 * blocks):
            index = number % 4 in (1, 2)
            tell(f"window {number + 1} of {4 * blocks}, in {DTYPES[index]}")
            seconds[index].append(await answer(engines[index], list(islice(asked, questions))))
    ratios = [
        sum(seconds[1][at : at + 2]) / sum(seconds[0][at : at + 2])
        for at in range(0, 2 * blocks, 2)
    ]
    return {
        "seconds": dict(zip(DTYPES, seconds, strict=True)),
        "questions": questions,
        "ratio": median(ratios),
        "blocks": ratios,
        "auto": resolved(EngineConfig(dtype="auto")).dtype,
    }


def requests(chat: ChatFormat, count: int) -> Iterator[GenerateRequest]:
    """Yield `count` questions, each about a new scene at full resolution."""
    for data, sample in generate_split("train", count, seed=0):
        image = Image.open(io.BytesIO(data)).convert("RGB")
        yield GenerateRequest(
            chat.first_turn(sample.question),
            (image,),
            Sampling(temperature=0.0, max_tokens=8),
            sample.sample_id,
        )


async def answer(engine: Engine, asked: list[GenerateRequest]) -> float:
    """Return the seconds in which the engine answers all requests."""
    slots = asyncio.Semaphore(IN_FLIGHT)

    async def one(request: GenerateRequest) -> None:
        async with slots:
            await engine(request)

    started = time.perf_counter()
    await asyncio.gather(*(one(request) for request in asked))
    return time.perf_counter() - started


def lines(figures: dict[str, Any]) -> list[str]:
    """Return the figures as text."""
    low, high = min(figures["blocks"]), max(figures["blocks"])
    rates = [figures["questions"] / median(figures["seconds"][dtype]) for dtype in DTYPES]
    return [
        f"seconds in bfloat16 over float32: {figures['ratio']:.2f} "
        f"(blocks of four windows: {low:.2f} to {high:.2f})",
        f"median questions/s {rates[0]:.0f} in float32, {rates[1]:.0f} in bfloat16",
        f'engine.dtype "auto" is {figures["auto"]} on this machine',
    ]


def main() -> None:
    given: argparse.Namespace = parser(__doc__, "fewer questions", "dtypes").parse_args()
    questions, blocks = (64, 1) if given.quick else (256, 4)
    with Screen() as screen:
        figures = asyncio.run(benchmark(questions, blocks, screen.tell))
    found = lines(figures)
    print("\n".join(found))
    save(given, "dtypes", "\n".join(f"- {line}" for line in found), figures)


if __name__ == "__main__":
    main()
