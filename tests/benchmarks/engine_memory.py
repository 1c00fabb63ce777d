"""Measures whether the memory of an engine stays flat over 100,000 short requests.

    PYTHONPATH=.:platform python tests/benchmarks/engine_memory.py [--kind text|image] [--quick]

One engine runs the shipped policy. Each of 16 clients sends a request when it has the reply to its
previous one. No two requests have the same question or the same image.
"""

import argparse
import asyncio
from pathlib import Path

import psutil
from PIL import Image
from transformers import AutoTokenizer

from awares import mini
from awares.chat import ChatFormat, Said
from awares.families.qwen2_5_vl import QWEN2_5_VL
from awares.generate import GenerateRequest, Sampling
from awares.tokens import VisionLimits
from awares_platform.config.engine import EngineConfig
from awares_platform.engine.engine import Engine
from awares_platform.runtime import logs
from tests.benchmarks.command import Screen
from tests.integration.running_engine import engine_memory

FORMATTER = argparse.RawDescriptionHelpFormatter
CLIENTS, PARTS = 16, 10
LIMITS = VisionLimits(min_pixels=28 * 28, max_pixels=512 * 28 * 28)
CONFIG = EngineConfig(
    dtype="float32", kv_cache_gib=0.03125, max_model_len=1024, view_cache_gib=0.03
)


def request(chat: ChatFormat, index: int, kind: str) -> GenerateRequest:
    """Return the request with this index. With kind "image", its image has a unique colour."""
    images = ()
    if kind == "image":
        colour = index % 256, index // 256 % 256, index // 65536
        images = (Image.new("RGB", (112, 112), colour),)
    said = (Said("user", f"Which digit has number {index}?", images=len(images)),)
    ids = tuple(chat.conversation(said))
    return GenerateRequest(ids, images, Sampling(max_tokens=4), f"request-{index}")


async def measure(kind: str, count: int, screen: Screen) -> None:
    """Send `count` requests, and show the memory of both processes after each tenth."""
    chat = ChatFormat(AutoTokenizer.from_pretrained(Path(mini.POLICY)))
    screen.tell("starting an engine")
    engine = await Engine.start(Path(mini.POLICY), CONFIG, chat, family=QWEN2_5_VL, limits=LIMITS)

    async def ask(first: int, last: int) -> None:
        for index in range(first, last, CLIENTS):
            await engine(request(chat, index, kind))

    async with engine:
        for first in range(0, count, count // PARTS):
            last = first + count // PARTS
            screen.tell(f"requests {first:,} to {last:,}")
            await asyncio.gather(*(ask(first + one, last) for one in range(CLIENTS)))
            client = psutil.Process().memory_info().rss
            sizes = f"engine {engine_memory() / 1e6:,.0f} MB, client {client / 1e6:,.0f} MB"
            screen.show(f"{last:>7,} requests: {sizes}")


def main() -> None:
    """Read the command line, and measure."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=FORMATTER)
    options.add_argument("--kind", choices=("text", "image"), default="text")
    options.add_argument("--quick", action="store_true", help="send 10,000 requests only")
    chosen = options.parse_args()
    logs.configure()
    with Screen() as screen:
        asyncio.run(measure(chosen.kind, 10_000 if chosen.quick else 100_000, screen))


if __name__ == "__main__":
    main()
