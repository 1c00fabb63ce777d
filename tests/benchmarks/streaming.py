"""How much generation costs weights that stream in: tokens per second with a new version every learner step, over tokens without.

    PYTHONPATH=.:platform python tests/benchmarks/streaming.py [--quick] [--step-s S] [--json PATH]

One vLLM engine with the bundled policy, kept full of groups of requests; SeaweedFS on loopback. Windows of equal length, with and without
updates, take turns in one run (A B B A ...), so that what else happens on the machine meets both; the ratio is the median over such blocks
of four, in each of which a steady drift of the machine cancels. An update is what GRPO does after each
step: a share of the language model's weights moves by a representable value, a publisher in a process of its own encodes and uploads, the
engine polls, prefetches, pauses, applies, and scores the canary; nothing is left out. All of it shares one machine here, so the publisher
works in every window; in those without updates for a run that nobody follows. Also reported: the pause of each update, and the time from
`begin` to loaded.
"""

import argparse
import asyncio
import io
import json
import multiprocessing
import os
import sys
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
from rich.progress import Progress, TextColumn, TimeElapsedColumn
from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

from awares.chat import ChatFormat
from awares.generate import GenerateRequest, Sampling
from awares.images import low_view
from awares.mini import POLICY
from awares.mini.benchmark import generate_split
from awares.tokens import VisionLimits
from awares_platform.config.engine import EngineConfig
from awares_platform.config.store import StoreConfig
from awares_platform.engine.canary import Canary, learner_logprobs, to_extra
from awares_platform.engine.engine import Engine
from awares_platform.engine.load import LoadReport
from awares_platform.store import ObjectStore, seaweed
from awares_platform.weights import Publisher, Subscriber
from awares_platform.weights.parts import Part, whole_parts

LIMITS = VisionLimits(min_pixels=28 * 28, max_pixels=1_605_632)
GROUPS_IN_FLIGHT = 16  # as GRPO's actors have
GROUP = 8
POLL_S = 0.25  # as GRPO's actors do
WARM_WINDOWS = 3  # the engine's first half minute is slower
SETTLE_S = 2.0  # for the version before the window to be loaded
RUNS = ("not-followed", "followed")
FOLLOWED = 1
MOVED = 0.3  # share of weights that a step moves; at a mini run's learning rate


State = tuple[dict[str, torch.Tensor], dict[str, Any]]


@dataclass(slots=True)
class Load:
    """Requests that keep the engine full; counts the tokens that came back."""

    engine: Engine
    tokens: int = 0

    async def run(self, groups: Iterator[GenerateRequest]) -> None:
        """One group after another; the slots share `groups`, so that no prompt comes twice and none is in the prefix cache."""
        for request in groups:
            generations = await asyncio.gather(*(self.engine(request) for _ in range(GROUP)))
            self.tokens += sum(len(generation.token_ids) for generation in generations)


def learner(
    store: ObjectStore, states: list[State], step_s: float, target: Any, begun: Any
) -> None:
    """A process that publishes a version every `step_s` seconds, for the run RUNS[target]; tells when it began with each."""
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
    """Follows the bus as a rollout actor does."""

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
    """Tokens per second of windows without and with updates."""
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
    """States that a step apart could be, each with its canary."""
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(POLICY, dtype=torch.bfloat16).eval()
    generator, found = torch.Generator().manual_seed(0), []
    for _ in range(number):
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "visual" not in name:
                    parameter.view(torch.int16).add_(
                        (torch.rand(parameter.shape, generator=generator) < MOVED).to(torch.int16)
                    )
        state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        found.append(
            (state, {"canary": to_extra(canary, learner_logprobs(model, processor, canary))})
        )
    return found


def prompts(chat: ChatFormat) -> Iterator[GenerateRequest]:
    """First turns of ever new questions about ever new scenes."""
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
        Path(POLICY), EngineConfig(), chat, seed=0, limits=LIMITS
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
    """What is said of the figures."""
    pause, rates = figures["pause_s"], figures["tokens_per_s"]
    low, high = min(figures["blocks"]), max(figures["blocks"])
    p50, p95, apply = (
        f"{seconds * 1e3:.0f} ms" for seconds in (pause["p50"], pause["p95"], figures["apply_s"])
    )
    return [
        f"tokens/s with updates over without: {figures['ratio']:.3f} (blocks of four windows: {low:.3f} to {high:.3f})",
        f"median tokens/s {median(rates['with']):.0f} with, {median(rates['without']):.0f} without; "
        f"{figures['updates']} updates of {figures['bytes'] / 1e6:.2f} MB, one per {step_s:g} s",
        f"pause per update: p50 {p50}, p95 {p95}, most of it the step in flight; applying {apply}",
        f"from the learner's `begin` to loaded, canary included: {figures['begin_to_loaded_s']:.2f} s",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer windows")
    parser.add_argument(
        "--step-s",
        type=float,
        default=1.6,
        help="seconds of a learner step; 1.6 is the quickstart's",
    )
    parser.add_argument(
        "--no-canary", action="store_true", help="leave the canary out, to see what it costs"
    )
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument(
        "--readme", type=Path, help="document to fill with the figures, between its streaming marks"
    )
    given = parser.parse_args()
    torch.set_num_threads(1)
    with (
        tempfile.TemporaryDirectory() as name,
        seaweed.serve(Path(name, "store"), "awares") as server,
    ):
        os.environ |= {
            "AWS_ACCESS_KEY_ID": server.access_key,
            "AWS_SECRET_ACCESS_KEY": server.secret_key,
        }
        store = ObjectStore.from_config(
            StoreConfig(url="s3://awares/benchmark", endpoint=server.endpoint)
        )
        with Progress(
            TextColumn("{task.description}"), TimeElapsedColumn(), transient=True
        ) as progress:
            task = progress.add_task("")
            figures = asyncio.run(
                benchmark(store, given, lambda what: progress.update(task, description=what))
            )
    found = lines(figures, given.step_s)
    print("\n".join(found))
    if given.readme:
        sys.path.append(str(Path(__file__).parents[2] / ".ci"))
        from marked import fill

        fill(given.readme, "streaming", "\n".join(f"- {line}" for line in found))
    if given.json:
        given.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
