"""Measures the longest gap of the endpoint's event loop during questions about large images.

    python tests/benchmarks/event_loop.py [MEGAPIXELS]

A gap is the time between two wake-ups of a task that sleeps for a millisecond. All other clients of
the replica wait during a gap.
"""

import asyncio
import io
import sys
import time
from collections.abc import Awaitable
from pathlib import Path

from PIL import Image
from transformers import AutoTokenizer

from awares import mini
from awares.budget import Budget
from awares.chat import ChatFormat, Said
from awares.episode_spec import EpisodeSpec
from awares.families.qwen2_5_vl import QWEN2_5_VL
from awares.generate import Sampling
from awares.images import DecodeLimits
from awares.tokens import VisionLimits
from awares_platform.config.engine import EngineConfig
from awares_platform.engine.engine import Engine
from awares_platform.serve.croploop import CropLoop
from awares_platform.serve.openai import ChatQuestion

LIMITS = VisionLimits(min_pixels=784, max_pixels=784 * 512)
KINDS = (("JPEG", "RGB"), ("PNG", "RGB"), ("PNG", "RGBA"), ("TIFF", "CMYK"))


def encoded(side: int, kind: str, mode: str) -> bytes:
    """Return an encoded image of noise. Its width is `side`, and its height is 3/4 of `side`."""
    small = Image.effect_noise((side // 8, side * 3 // 32), 60)
    buffer = io.BytesIO()
    small.resize((side, side * 3 // 4)).convert("RGB").convert(mode).save(buffer, kind)
    return buffer.getvalue()


async def longest_gap(work: Awaitable[object]) -> float:
    """Return the longest gap of the loop in milliseconds while `work` runs."""
    longest, last = 0.0, time.perf_counter()
    task = asyncio.ensure_future(work)
    while not task.done():
        await asyncio.sleep(0.001)
        now = time.perf_counter()
        longest, last = max(longest, now - last), now
    await task
    return longest * 1000


async def answer(loop: CropLoop, data: bytes) -> None:
    """Answer one question about an image, as the endpoint does."""
    question = ChatQuestion(
        said=(Said("user", "which digit?", images=1),),
        urls=("data:",),
        sampling=Sampling(max_tokens=16),
        answer_tokens=16,
    )
    prepared = await loop.prepare(question, [data])
    try:
        await loop.play(prepared)
    finally:
        prepared.release()


async def measure(megapixels: float) -> None:
    """Print the longest gaps with one and with four images in flight."""
    chat = ChatFormat(AutoTokenizer.from_pretrained(Path(mini.POLICY)))
    config = EngineConfig(dtype="float32", kv_cache_gib=0.5, max_model_len=4096)
    spec = EpisodeSpec(
        limits=LIMITS,
        low_ratio=0.5,
        sampling=Sampling(max_tokens=16),
        budget=Budget(visual_tokens=2048, crops=4, context=4096, fit=True),
    )
    engine = await Engine.start(Path(mini.POLICY), config, chat, family=QWEN2_5_VL, limits=LIMITS)
    async with engine:
        loop = CropLoop(engine, chat, spec, DecodeLimits(), config.max_images, 10**9)
        await answer(loop, encoded(800, "PNG", "RGB"))
        side = int((megapixels * 1e6 * 4 / 3) ** 0.5)
        for kind, mode in KINDS:
            data = encoded(side, kind, mode)
            alone = await longest_gap(answer(loop, data))
            # Extra bytes at the end of an image file change only its digest. The endpoint therefore
            # cannot reuse the image of another request.
            four = [data + bytes(count) for count in range(1, 5)]
            together = await longest_gap(asyncio.gather(*(answer(loop, one) for one in four)))
            print(f"{megapixels:g} MP {kind} {mode}: {alone:.0f} ms alone, {together:.0f} of four")


if __name__ == "__main__":
    asyncio.run(measure(float(sys.argv[1]) if len(sys.argv) > 1 else 48))
