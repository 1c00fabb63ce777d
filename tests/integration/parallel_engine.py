"""Starts a tensor-parallel engine, prints "ready", and waits until a test kills this process.

Usage: `python -m tests.integration.parallel_engine <policy>`
"""

import asyncio
import sys
import time
from pathlib import Path

from transformers import AutoProcessor

from awares.chat import ChatFormat
from awares_platform.config.engine import EngineConfig
from tests.integration.running_engine import started

CONFIG = EngineConfig(dtype="float32", kv_cache_gib=0.25, max_requests=8, tensor_parallel=2)


def main(policy: Path) -> None:
    chat = ChatFormat(AutoProcessor.from_pretrained(policy).tokenizer)
    with started(policy, CONFIG, chat) as (runner, _):
        print("ready", flush=True)
        runner.run(asyncio.to_thread(time.sleep, 600))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
