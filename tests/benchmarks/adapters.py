"""Measure how an engine of the 7B model's width takes the versions of a LoRA run.

    PYTHONPATH=.:platform python tests/benchmarks/adapters.py [--layers N] [--json PATH]

The policy is a Qwen2.5-VL in bfloat16 with the widths of the 7B model (hidden 3,584, MLP 18,944, 28
heads, 4 KV heads), random weights, few layers, and the vision tower and vocabulary of the bundled
policy. SeaweedFS runs on the same machine. For each way and rank the script publishes some versions
and loads each one while the engine generates. It reports medians:

- load: the time from HEAD to the applied version, without a canary;
- pause: the part of it in which generation waits;
- memory: the growth of the proportional set size of the engine and of this process, from the time
  before the first version to its peak. The publisher's own memory counts, too.

The way "adapter" is the engine's own in bfloat16. The way "folded" adds the adapter to the weights,
as an engine in float32 does. The last columns are scaled to 28 layers by the number of layers,
which overstates fixed costs.
"""

import asyncio
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import torch
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration

from awares.chat import ChatFormat
from awares.families.qwen2_5_vl import QWEN2_5_VL
from awares.generate import GenerateRequest, Sampling
from awares.mini.policy import build_config, save_policy
from awares.mini.tokenizer import train_tokenizer
from awares.tokens import VisionLimits
from awares_platform.config.engine import EngineConfig
from awares_platform.engine.engine import Engine
from awares_platform.store import ObjectStore
from awares_platform.weights import Identity, Publisher, Subscriber
from awares_platform.weights.adapter import DOWN, UP
from tests.benchmarks.command import Screen, parser, save
from tests.benchmarks.local_store import local_store

WHOLE = 28
VERSIONS = 3
LIMITS = VisionLimits(min_pixels=28 * 28, max_pixels=1_605_632)
WIDTHS = {
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
}


def write_wide(directory: Path, layers: int) -> ChatFormat:
    """Write the policy to `directory`, and return its chat format."""
    tokenizer = train_tokenizer()
    config: Any = build_config(tokenizer)
    config.text_config.update({**WIDTHS, "num_hidden_layers": layers})
    config.text_config.layer_types = ["full_attention"] * layers
    config.text_config.rope_parameters["mrope_section"] = [16, 24, 24]
    config.vision_config.out_hidden_size = WIDTHS["hidden_size"]
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    model: Any = Qwen2_5_VLForConditionalGeneration(config)
    torch.set_default_dtype(before)
    save_policy(model, tokenizer, directory)
    return ChatFormat(tokenizer)


def adapter(shapes: dict[str, tuple[int, ...]], rank: int, seed: int) -> dict[str, Tensor]:
    """Return a random adapter of every linear layer of the language model, in bfloat16."""
    torch.manual_seed(seed)
    tensors = {}
    for name, shape in shapes.items():
        layer = name.removesuffix(".weight")
        if layer.endswith(QWEN2_5_VL.lora_targets) and "visual" not in name and name != layer:
            current = QWEN2_5_VL.current_name(layer)
            tensors[f"{current}{DOWN}"] = (torch.randn(rank, shape[1]) * 0.01).bfloat16()
            tensors[f"{current}{UP}"] = (torch.randn(shape[0], rank) * 1e-4).bfloat16()
    return tensors


class Memory(threading.Thread):
    """Samples the memory of this process and its descendants, and keeps the peak in bytes."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.start_bytes = self.peak = used_bytes()
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(0.1):
            self.peak = max(self.peak, used_bytes())

    def stop(self) -> int:
        """Return the growth from the start to the peak."""
        self._ended.set()
        self.join()
        return self.peak - self.start_bytes


def used_bytes() -> int:
    """Return the memory of this process and of its engine."""
    total = 0
    for process in [os.getpid(), *engines()]:
        try:
            rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
        except OSError:
            continue
        line = next(line for line in rollup.splitlines() if line.startswith("Pss:"))
        total += int(line.split()[1]) << 10
    return total


def engines() -> Iterator[int]:
    """Yield the ids of the descendants of this process that run vLLM's engine."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = path.read_text().rpartition(")")
        except OSError:
            continue
        parents[int(name.split()[0])] = int(rest.split()[1])
    for process in parents:
        above = process
        while above := parents.get(above, 0):
            if above == os.getpid():
                break
        if above and "EngineCore" in Path(f"/proc/{process}/cmdline").read_text():
            yield process


@contextmanager
def published(
    store: ObjectStore, run: str, rank: int, shapes: dict[str, tuple[int, ...]]
) -> Iterator[tuple[Publisher, Subscriber, list[dict[str, Tensor]]]]:
    publisher = Publisher(store, run, identity=Identity(adapter=2.0))
    states = [adapter(shapes, rank, seed) for seed in range(2)]
    yield publisher, Subscriber(store, run), states
    publisher.wait()


async def measure(
    store: ObjectStore, policy: Path, chat: ChatFormat, way: str, rank: int, threads: int
) -> dict[str, Any]:
    """Start an engine, load some versions, and return the medians."""
    from awares_platform.weights.checkpoint import Checkpoint

    config = EngineConfig(
        dtype="bfloat16",
        kv_cache_gib=0.25,
        threads=threads,
        start_timeout_s=900,
        load_timeout_s=900,
    )
    lora_rank = rank if way == "adapter" else 0
    engine = await Engine.start(
        policy, config, chat, family=QWEN2_5_VL, limits=LIMITS, lora_rank=lora_rank
    )
    if way == "folded":
        # The engine refuses to fold in bfloat16. This measures what it would cost.
        engine._check_form = lambda manifest: None  # type: ignore[method-assign]
    loads, pauses = [], []
    shapes = dict(Checkpoint(policy).shapes)
    ids = chat.first_turn("what is the digit?")
    ids = tuple(token for token in ids if token != chat.image_token_id)
    async with engine:
        with published(store, f"{way}-{rank}", rank, shapes) as (publisher, subscriber, states):
            for version in range(1, VERSIONS + 1):
                publisher.publish(version, states[version % 2])
                if version == 1:
                    memory = Memory()
                    memory.start()
                request = GenerateRequest(ids, (), Sampling(max_tokens=4), f"{version}")
                generating = asyncio.create_task(engine(request))
                await asyncio.sleep(0.5)
                started = time.perf_counter()
                head = await asyncio.to_thread(subscriber.head)
                assert head == version
                report = await engine.load_version(subscriber, version)
                loads.append(time.perf_counter() - started)
                pauses.append(report.pause_s)
                await generating
        grown = memory.stop()
    sent = sum(tensor.nbytes for tensor in states[0].values())
    return {
        "way": way,
        "rank": rank,
        "load_s": median(loads),
        "pause_s": median(pauses),
        "memory": grown,
        "adapter_bytes": sent,
    }


def table(rows: list[dict[str, Any]], layers: int, threads: int) -> str:
    """Return the figures as a Markdown table."""
    scale = WHOLE / layers
    head = "| way | rank | load | pause | memory | load, 28 layers | pause | memory |"
    lines = [head, "|---|---|---|---|---|---|---|---|"]
    for row in rows:
        cells = [
            f"{row['load_s'] * by:.2f} s | {row['pause_s'] * by:.3f} s | "
            f"{row['memory'] * by / 1e9:.2f} GB"
            for by in (1, scale)
        ]
        lines.append(f"| {row['way']} | {row['rank']} | {' | '.join(cells)} |")
    note = f"\n{layers} layers of the 7B model's width, bfloat16, {threads} threads of two cores."
    return "\n".join([*lines, note])


def main() -> None:
    options = parser(__doc__, "rank 16 only", "adapters")
    options.add_argument("--layers", type=int, default=4, help="layers of the language model")
    options.add_argument("--threads", type=int, default=1, help="threads of the engine")
    options.add_argument("--ways", nargs="+", default=["adapter", "folded"])
    given = options.parse_args()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as name, local_store(Path(name)) as store, Screen() as show:
        show.tell("writing the policy")
        policy = Path(name) / "policy"
        policy.mkdir()
        chat = write_wide(policy, given.layers)
        for way in given.ways:
            for rank in (16,) if given.quick else (16, 64):
                show.tell(f"{way}, rank {rank}")
                row = asyncio.run(measure(store, policy, chat, way, rank, given.threads))
                rows.append(row)
                show.show(str(row))
    found = table(rows, given.layers, given.threads)
    print(found)
    save(given, "adapters", found, {"layers": given.layers, "rows": rows})


if __name__ == "__main__":
    main()
