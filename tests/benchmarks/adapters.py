"""Measures the time and memory of loading LoRA adapters into an engine with the 7B model's width.

    PYTHONPATH=.:platform python tests/benchmarks/adapters.py [--layers N ...] [--json PATH]

The engine keeps the adapter separate ("adapter") or adds it to the weights ("folded").

- load: the time from reading HEAD to the applied version
- pause: the part of the load in which generation waits
- memory: the growth of this process and the engine (PSS), at its peak
"""

import asyncio
import json
import os
import struct
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
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
from awares.mini.policy import build_config, build_processor
from awares.mini.tokenizer import train_tokenizer
from awares.tokens import VisionLimits
from awares_platform.config.engine import EngineConfig
from awares_platform.engine.engine import Engine
from awares_platform.engine.load import LoadReport
from awares_platform.store import ObjectStore
from awares_platform.weights import Identity, Publisher, Subscriber
from awares_platform.weights.adapter import DOWN, UP
from awares_platform.weights.checkpoint import Checkpoint
from tests.benchmarks.command import Screen, parser, save
from tests.benchmarks.local_store import local_store

WHOLE = 28
"""The number of layers of the 7B model."""
VERSIONS = 6
"""The number of versions that an engine loads in one measurement."""
LIMITS = VisionLimits(min_pixels=28 * 28, max_pixels=64 * 28 * 28)
WIDTHS = {
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
}


def write_wide(directory: Path, layers: int) -> ChatFormat:
    """Write a policy with `layers` layers to `directory`, and return its chat format."""
    tokenizer = train_tokenizer()
    config: Any = build_config(tokenizer)
    config.text_config.update({**WIDTHS, "num_hidden_layers": layers})
    config.text_config.layer_types = ["full_attention"] * layers
    config.text_config.rope_parameters["mrope_section"] = [16, 24, 24]
    config.vision_config.out_hidden_size = WIDTHS["hidden_size"]
    config.architectures, config.dtype = (
        [Qwen2_5_VLForConditionalGeneration.__name__],
        torch.bfloat16,
    )
    config.save_pretrained(directory)
    build_processor(tokenizer).save_pretrained(directory)
    with torch.device("meta"):
        model: Any = Qwen2_5_VLForConditionalGeneration(config)
    write_zeros(directory / "model.safetensors", model.named_parameters())
    return ChatFormat(tokenizer)


def write_zeros(file: Path, shaped: Iterable[tuple[str, Tensor]]) -> None:
    """Write a safetensors file of zeros in bfloat16 that takes no space on the disk."""
    header, end = {}, 0
    for name, tensor in shaped:
        start, end = end, end + tensor.numel() * 2
        header[name] = {"dtype": "BF16", "shape": [*tensor.shape], "data_offsets": [start, end]}
    head = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    head += b" " * (-len(head) % 8)
    with file.open("wb") as written:
        written.write(struct.pack("<Q", len(head)) + head)
        written.truncate(8 + len(head) + end)


def adapter(shapes: dict[str, tuple[int, ...]], rank: int, seed: int) -> dict[str, Tensor]:
    """Return random LoRA matrices in bfloat16 for each linear layer of the language model."""
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
    """Samples the memory of this process and its engine, and keeps the peak in bytes."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.start_bytes = self.peak = used_bytes()
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(0.1):
            self.peak = max(self.peak, used_bytes())

    def stop(self) -> int:
        """Stop sampling, and return the growth from the start to the peak in bytes."""
        self._ended.set()
        self.join()
        return self.peak - self.start_bytes


def used_bytes() -> int:
    """Return the proportional set size of this process and its engine in bytes."""
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
    """Yield the ids of all descendants of this process that run an engine of vLLM."""
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
    """Start an engine, load VERSIONS versions, and return a row of the table as a dict."""
    config = EngineConfig(
        dtype="bfloat16",
        kv_cache_gib=0.25,
        max_model_len=256,
        max_requests=4,
        threads=threads,
        start_timeout_s=900,
        load_timeout_s=900,
    )
    lora_rank = rank if way == "adapter" else 0
    engine = await Engine.start(
        policy, config, chat, family=QWEN2_5_VL, limits=LIMITS, lora_rank=lora_rank
    )
    if way == "folded":
        # Remove the check by which a bfloat16 engine refuses to add an adapter to its weights.
        engine._check_form = lambda manifest: None  # type: ignore[method-assign]
    loads: dict[bool, list[tuple[float, LoadReport]]] = {True: [], False: []}
    shapes = dict(Checkpoint(policy).shapes)
    async with engine:
        before = used_bytes()
        with published(store, policy.name + way, rank, shapes) as (publisher, subscriber, states):
            for version in range(1, VERSIONS + 1):
                publisher.publish(version, states[version % 2])
                publisher.wait()
                if version == 1:
                    memory = Memory()
                    memory.start()
                busy = version % 2 == 0
                loads[busy].append(await load(engine, chat, subscriber, version, busy))
        grown = memory.stop()
    return {
        "way": way,
        "rank": rank,
        "load_s": median(seconds for seconds, _ in loads[False]),
        "receive_s": median(
            one.prefetched.fetch_s + one.prefetched.decode_s + one.prefetched.verify_s
            for _, one in loads[False]
        ),
        "pause_s": median(one.pause_s for _, one in loads[False]),
        "busy_pause_s": median(one.pause_s for _, one in loads[True]),
        "memory": grown,
        "engine_bytes": before,
        "adapter_bytes": sum(tensor.nbytes for tensor in states[0].values()),
    }


async def load(
    engine: Engine, chat: ChatFormat, subscriber: Subscriber, version: int, busy: bool
) -> tuple[float, LoadReport]:
    """Load a version. Return the seconds from reading HEAD to the end, and the engine's report.

    If `busy` is true, the engine generates during the load.
    """
    ids = chat.first_turn("what is the digit?")
    ids = tuple(token for token in ids if token != chat.image_token_id)
    request = GenerateRequest(ids, (), Sampling(max_tokens=8 if busy else 1), f"{version}")
    generating = asyncio.create_task(engine(request))
    await asyncio.wait([generating], timeout=0.5 if busy else None)
    started = time.perf_counter()
    head = await asyncio.to_thread(subscriber.head)
    assert head == version
    report = await engine.load_version(subscriber, version)
    seconds = time.perf_counter() - started
    await generating
    return seconds, report


FIGURES = ("load_s", "receive_s", "pause_s", "busy_pause_s", "memory")


def extended(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return `rows` grouped by "way" ("adapter" or "folded").

    A way with measurements at two numbers of layers gets an extrapolated row for 28 layers.
    """
    found = []
    for way in dict.fromkeys(row["way"] for row in rows):
        measured = [row for row in rows if row["way"] == way]
        found += measured
        if len(measured) == 2 and measured[1]["layers"] < WHOLE:
            one, two = measured
            by = (WHOLE - one["layers"]) / (two["layers"] - one["layers"])
            line = {key: one[key] + by * (two[key] - one[key]) for key in FIGURES}
            found.append({**one, **line, "layers": WHOLE, "line": True})
    return found


def table(rows: Sequence[dict[str, Any]], threads: int) -> str:
    """Return the figures as a Markdown table."""
    head = "| way | rank | layers | load | of it receiving | pause, idle | generating | memory |"
    lines = [head, "|---|---|---|---|---|---|---|---|"]
    for row in extended(rows):
        depth = f"{row['layers']}, on the line" if row.get("line") else f"{row['layers']}"
        times = [f"{row[key]:.2f} s" for key in FIGURES[:-1]]
        cells = [row["way"], f"{row['rank']}", depth, *times, f"{row['memory'] / 1e9:.2f} GB"]
        lines.append(f"| {' | '.join(cells)} |")
    note = f"\nThe 7B model's width, bfloat16, {threads} threads of two cores."
    return "\n".join([*lines, note])


def main() -> None:
    options = parser(__doc__, "the way adapter only", "adapters")
    options.add_argument("--layers", type=int, nargs="*", default=[2, 14], help="of the adapter")
    options.add_argument("--folded", type=int, nargs="*", default=[2, 4], help="layers to fold")
    options.add_argument("--rank", type=int, default=8, help="rank of the adapter")
    options.add_argument("--threads", type=int, default=2, help="threads of the engine")
    given = options.parse_args()
    torch.set_num_threads(1)
    rows = []
    work = [("adapter", layers) for layers in given.layers]
    work += [] if given.quick else [("folded", layers) for layers in given.folded]
    with tempfile.TemporaryDirectory() as name, local_store(Path(name)) as store, Screen() as show:
        for way, layers in work:
            show.tell(f"{way}, {layers} layers")
            policy = Path(name) / f"policy-{layers}"
            policy.mkdir(exist_ok=True)
            chat = write_wide(policy, layers)
            row = asyncio.run(measure(store, policy, chat, way, given.rank, given.threads))
            rows.append({"layers": layers, **row})
            show.show(str(rows[-1]))
    found = table(rows, given.threads)
    print(found)
    save(given, "adapters", found, {"rows": rows})


if __name__ == "__main__":
    main()
