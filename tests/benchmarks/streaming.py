"""Measures how much generation slows down while weights stream in.

    PYTHONPATH=.:platform python tests/benchmarks/streaming.py [--quick] [--step-s S] [--json PATH]

The main result is tokens per second with updates / without updates. In the windows without updates,
the publisher publishes to a run that no engine follows, so that it needs the same CPU time.
"""

import argparse
import asyncio
import io
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import torch
from PIL import Image
from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

from awares.chat import ChatFormat
from awares.families.qwen2_5_vl import QWEN2_5_VL
from awares.generate import GenerateRequest, Sampling
from awares.images import low_view
from awares.mini import POLICY
from awares.mini.benchmark import generate_split
from awares.tokens import VisionLimits
from awares_platform.config.engine import EngineConfig
from awares_platform.engine.canary import Canary, learner_logprobs, to_extra
from awares_platform.engine.engine import Engine
from awares_platform.engine.load import LoadReport
from awares_platform.store import ObjectStore
from awares_platform.weights import Publisher, Subscriber
from awares_platform.weights.parts import Part, whole_parts
from tests.benchmarks.command import Screen, parser, save
from tests.benchmarks.local_store import local_store

LIMITS = VisionLimits(min_pixels=28 * 28, max_pixels=1_605_632)
GROUPS_IN_FLIGHT, GROUP, POLL_S = 16, 8, 0.25
"""The defaults of a GRPO actor: groups in flight, episodes per group, seconds between two polls."""

WARM_WINDOWS = 3
"""The number of windows before the measurement. The engine is slower in its first half minute."""

SETTLE_S = 2.0
"""The seconds of the pause before each window. During it, the engine can finish a running load."""

RUNS = ("not-followed", "followed")
FOLLOWED = 1
"""The index in RUNS of the run that the engine follows."""

MOVED = 0.3
"""The share of the weights that one learner step changes at the mini setup's learning rate."""

State = tuple[dict[str, torch.Tensor], dict[str, Any]]


@dataclass(slots=True)
class Load:
    """Keeps the engine busy with requests. `tokens` counts the tokens that the engine returns."""

    engine: Engine
    tokens: int = 0

    async def run(self, groups: Iterator[GenerateRequest]) -> None:
        """Send groups one after another, each as GROUP identical requests at once.

        Concurrent calls share the iterator `groups`, which yields a new prompt for each group.
        """
        for request in groups:
            generations = await asyncio.gather(*(self.engine(request) for _ in range(GROUP)))
            self.tokens += sum(len(generation.token_ids) for generation in generations)


def learner(
    store: ObjectStore, states: list[State], step_s: float, target: Any, begun: Any
) -> None:
    """Publish a version for the run RUNS[target] every `step_s` seconds, until the process dies.

    The queue `begun` gets the version and the Unix time at which each update of the followed run
    begins.
    """
    torch.set_num_threads(1)
    publishers = [Publisher(store, run) for run in RUNS]
    while True:
        started, publisher = time.perf_counter(), publishers[target.value]
        state, extra = states[(publisher.version or 0) % len(states)]
        parts = [
            Part(part.name, part.shape, part.start, part.values.clone())
            for part in whole_parts(state)
        ]
        version = publisher.begin(parts, extra)
        if publisher is publishers[FOLLOWED]:
            begun.put((version, time.time()))
        time.sleep(max(0.0, step_s - (time.perf_counter() - started)))


@dataclass(slots=True)
class Follower:
    """Polls HEAD and loads new weight versions, as a rollout actor does.

    `loads` has a pair for each load: its report, and the Unix time of its end.
    """

    engine: Engine
    subscriber: Subscriber
    canary: Canary | None
    loads: list[tuple[LoadReport, float]]

    async def run(self) -> None:
        while True:
            version = await asyncio.to_thread(self.subscriber.head)
            if version is not None and version != self.engine.version:
                report = await self.engine.load_version(self.subscriber, version, self.canary)
                self.loads.append((report, time.time()))
            await asyncio.sleep(POLL_S)


async def measure(
    load: Load,
    groups: Iterator[GenerateRequest],
    follower: Follower,
    target: Any,
    windows: int,
    window_s: float,
    tell: Any,
) -> tuple[list[float], list[float]]:
    """Return the tokens per second of the windows without updates, and of those with updates.

    `target` is a shared integer: the index in RUNS of the run to which the learner publishes.
    """
    rates: tuple[list[float], list[float]] = ([], [])
    tasks = [
        *(asyncio.create_task(load.run(groups)) for _ in range(GROUPS_IN_FLIGHT)),
        asyncio.create_task(follower.run()),
    ]
    tell("warming up")
    await asyncio.sleep(WARM_WINDOWS * window_s)
    for number in range(2 * windows):
        streaming = number % 4 in (1, 2)
        tell(f"window {number + 1} of {2 * windows}, {'with' if streaming else 'without'} updates")
        target.value = FOLLOWED if streaming else 0
        await asyncio.sleep(SETTLE_S)
        before, started = load.tokens, time.perf_counter()
        await asyncio.sleep(window_s)
        rates[streaming].append((load.tokens - before) / (time.perf_counter() - started))
    assert not any(task.done() for task in tasks), "the load or the follower ended early"
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return rates


def versions(canary: Canary, processor: Any, number: int) -> list[State]:
    """Return `number` successive states of the policy, each with the log-probs of the canary.

    Between two states, the share MOVED of the language model's weights moves by one representable
    value.
    """
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(POLICY, dtype=torch.bfloat16).eval()
    generator, found = torch.Generator().manual_seed(0), []
    for _ in range(number):
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "visual" not in name:
                    moved = torch.rand(parameter.shape, generator=generator) < MOVED
                    parameter.view(torch.int16).add_(moved.to(torch.int16))
        state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        logprobs = learner_logprobs(model, processor, canary)
        found.append((state, {"canary": to_extra(canary, logprobs)}))
    return found


def prompts(chat: ChatFormat) -> Iterator[GenerateRequest]:
    """Yield first-turn requests without end, each with a new question about a new scene."""
    sampling = Sampling(temperature=1.0, top_p=1.0, max_tokens=32)
    for seed in count():
        for data, sample in generate_split("train", 256, seed=seed):
            view = low_view(Image.open(io.BytesIO(data)).convert("RGB"))
            yield GenerateRequest(
                chat.first_turn(sample.question), (view,), sampling, f"{seed}/{sample.sample_id}"
            )


async def benchmark(store: ObjectStore, given: argparse.Namespace, tell: Any) -> dict[str, Any]:
    processor = AutoProcessor.from_pretrained(POLICY)
    chat = ChatFormat(processor.tokenizer)
    probes = [
        (Image.open(io.BytesIO(data)).convert("RGB"), sample)
        for data, sample in generate_split("test", 4, seed=0)
    ]
    images = {sample.image: image for image, sample in probes}
    canary = Canary.build([sample for _, sample in probes], images.__getitem__, chat, LIMITS)
    tell("the versions that will stream in, and the engine")
    states = versions(canary, processor, 4)
    async with await Engine.start(
        Path(POLICY), EngineConfig(), chat, seed=0, family=QWEN2_5_VL, limits=LIMITS
    ) as engine:
        context = multiprocessing.get_context("spawn")
        target, begun = context.Value("i", 0), context.SimpleQueue()
        process = context.Process(
            target=learner, args=(store, states, given.step_s, target, begun), daemon=True
        )
        process.start()
        follower = Follower(
            engine, Subscriber(store, RUNS[FOLLOWED]), None if given.no_canary else canary, []
        )
        windows, window_s = (2, 8.0) if given.quick else (12, 8.0)
        rates = await measure(
            Load(engine), prompts(chat), follower, target, windows, window_s, tell
        )
        process.kill()
    blocks = [
        sum(rates[1][at : at + 2]) / sum(rates[0][at : at + 2]) for at in range(0, windows, 2)
    ]
    starts = dict(begun.get() for _ in iter(begun.empty, True))
    reports = [report for report, _ in follower.loads]
    pauses = sorted(report.pause_s for report in reports)
    return {
        "tokens_per_s": {"without": rates[0], "with": rates[1]},
        "ratio": median(blocks),
        "blocks": blocks,
        "updates": len(reports),
        "pause_s": {
            "p50": median(pauses),
            "p95": pauses[int(0.95 * len(pauses))],
            "max": pauses[-1],
        },
        "apply_s": median(report.apply_s for report in reports),
        "fetch_s": median(report.prefetched.fetch_s for report in reports),
        "decode_s": median(report.prefetched.decode_s for report in reports),
        "verify_s": median(report.prefetched.verify_s for report in reports),
        "bytes": median(report.prefetched.size for report in reports),
        "begin_to_loaded_s": median(
            ended - starts[report.version] for report, ended in follower.loads
        ),
    }


def lines(figures: dict[str, Any], step_s: float) -> list[str]:
    """Return the figures as lines of text."""
    pause, rates = figures["pause_s"], figures["tokens_per_s"]
    low, high = min(figures["blocks"]), max(figures["blocks"])
    seconds = pause["p50"], pause["p95"], figures["apply_s"]
    p50, p95, apply = (f"{value * 1e3:.0f} ms" for value in seconds)
    return [
        f"tokens/s with updates over without: {figures['ratio']:.3f} "
        f"(blocks of four windows: {low:.3f} to {high:.3f})",
        f"median tokens/s {median(rates['with']):.0f} with, "
        f"{median(rates['without']):.0f} without; {figures['updates']} updates of "
        f"{figures['bytes'] / 1e6:.2f} MB, one per {step_s:g} s",
        f"pause per update: p50 {p50}, p95 {p95}, most of it the step in flight; applying {apply}",
        "from the learner's `begin` to loaded, canary included: "
        f"{figures['begin_to_loaded_s']:.2f} s",
    ]


def main() -> None:
    options = parser(__doc__, "fewer windows", "streaming")
    step = "seconds of a learner step; the default is that of the quickstart"
    options.add_argument("--step-s", type=float, default=1.6, help=step)
    options.add_argument("--no-canary", action="store_true", help="measure without the canary")
    given = options.parse_args()
    torch.set_num_threads(1)
    with (
        tempfile.TemporaryDirectory() as name,
        local_store(Path(name)) as store,
        Screen() as screen,
    ):
        figures = asyncio.run(benchmark(store, given, screen.tell))
    found = lines(figures, given.step_s)
    print("\n".join(found))
    save(given, "streaming", "\n".join(f"- {line}" for line in found), figures)


if __name__ == "__main__":
    main()
