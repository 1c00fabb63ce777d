"""Prints a table of what the rehearsal measured beside what `awares plan` states.

    PYTHONPATH=.:platform python -m tests.rehearsal.table [--directory runs/rehearsal]

The script reads the reports of run.py and prints the whole text of this folder's README.md.

The measured memory of an engine is the peak of its anonymous resident memory, minus its memory
before it loads the model. The measured memory of a trainer is the memory of its weights, plus the
most that a pass adds.

The planned memory is for the shallow model. For a trainer, it is for the largest pass that ran. The
plan's overhead for libraries is 0 here, because the measured memory leaves the libraries out.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from awares_platform.config import PlatformConfig, load
from awares_platform.config.grpo import GrpoConfig
from awares_platform.config.sft import SftConfig
from awares_platform.method.environment import vision_limits
from awares_platform.method.family import model_family
from awares_platform.plan.assumptions import Assumptions
from awares_platform.plan.engine import EngineMemory, engine_memory
from awares_platform.plan.geometry import Geometry, geometry
from awares_platform.plan.hours import grpo_hours, sft_hours
from awares_platform.plan.lengths import Lengths, lengths
from awares_platform.plan.traffic import traffic
from awares_platform.plan.trainer import element_bytes, memory, trained_parameters, trainer
from tests.rehearsal.memory import ProcessMemory
from tests.rehearsal.run import JOBS, SETUP, TRAINERS, options

SCORED = ("grpo", "evaluate")
"""The jobs whose engine scores canaries."""
TEMPLATE = Path(__file__).with_name("template.md")
"""The text of README.md, in which TABLE and SECONDS are placeholders."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    `what` is the name of the figure. `found` is the measured value and `planned` the plan's value,
    both in `unit`. `planned` is None if the plan has no value to compare.

    Example:
        Row("grpo", "trainer, peak memory", "GB", 7.61, 7.9)
    """

    job: str
    what: str
    unit: str
    found: float
    planned: float | None

    def __str__(self) -> str:
        cells = [self.job, self.what, *(self._cell(value) for value in (self.found, self.planned))]
        if self.planned:
            cells.append(f"{self.found / self.planned - 1:+.0%}" if self.unit != "%" else "")
        return f"| {' | '.join([*cells, ''][:5])} |"

    def _cell(self, value: float | None) -> str:
        if value is None:
            return ""
        if self.unit == "%":
            return f"{value:.0%}"
        return f"{value:.2f} {self.unit}".strip()


@dataclass(frozen=True, slots=True)
class Pass:
    """One forward pass of a trainer, as the probe recorded it.

    `rows` and `width` are the shape of the batch, and `tokens` is its number of tokens without
    padding. `scored` is the number of positions that the head scores. `gradient` is true for a pass
    with gradients. `layers` is the number of runs of the first decoder layer, including
    recomputations.

    Example:
        Pass(rows=2, width=1290, tokens=2025, scored=21, gradient=True, layers=2)
    """

    rows: int
    width: int
    tokens: int
    scored: int
    gradient: bool
    layers: int


def passes(events: Sequence[dict[str, Any]]) -> list[Pass]:
    """Return the passes that a trainer's events describe. A pass ends where the next one begins."""
    starts = [place for place, event in enumerate(events) if event["event"] == "pass"]
    found = []
    for start, end in zip(starts, [*starts[1:], len(events)], strict=True):
        first, rest = events[start], events[start + 1 : end]
        scored = [event["scored"] for event in rest if event["event"] == "head"]
        layers = sum(event["event"] == "layer" for event in rest)
        sizes = (first["rows"], first["width"], first["tokens"])
        found.append(Pass(*sizes, max(scored, default=0), first["gradient"], layers))
    return found


def padding(done: Sequence[Pass]) -> float:
    """Return the share of padding among all positions that the passes compute."""
    return 1 - sum(one.tokens for one in done) / sum(one.rows * one.width for one in done)


def trainer_peak(report: dict[str, Any]) -> int:
    """Return a trainer's peak memory in bytes: its weights, and the most that a pass adds.

    The weights are the memory that the process takes while it loads the model, and the memory that
    it maps from a file. The sampled memory does not include mapped files. The libraries, the
    tokenizer and the cache of views do not count, because a GPU holds none of them. The gradients
    and the optimizer's state of an adapter are too small to count.
    """
    events = [event for event in report["events"] if event["event"] != "engine"]
    first = {event["event"]: event for event in reversed(events)}
    process = ProcessMemory(**report["processes"][str(first["pass"]["pid"])])
    weights = first["loaded"]["memory"] - first["load"]["memory"] + first["loaded"]["mapped"]
    starts = [event for event in events if event["event"] == "pass"]
    ends = [event["time"] for event in (*starts[1:], events[-1])]
    added = [
        process.peak(start["time"], end) - start["memory"]
        for start, end in zip(starts, ends, strict=True)
    ]
    return weights + max(added)


def engine_peak(report: dict[str, Any]) -> int | None:
    """Return the largest peak memory of a job's engines in bytes, or None without an engine.

    The memory before an engine loads its model does not count.
    """
    starts = [event for event in report["events"] if event["event"] == "engine"]
    peaks = [
        ProcessMemory(**report["processes"][str(event["pid"])]).peak() - event["memory"]
        for event in starts
    ]
    return max(peaks, default=None)


def planned_trainer(
    config: PlatformConfig, job: SftConfig | GrpoConfig, shape: Geometry, done: Sequence[Pass]
) -> float:
    """Return the bytes that the plan states for the largest pass with gradients in `done`."""

    def need(one: Pass) -> float:
        rank = trainer(config.policy, job, shape, one.width, one.scored)
        scored = one.scored / one.rows
        rank = replace(rank, batch=one.rows, scored=scored)  # type: ignore[arg-type]
        return memory(rank, shape, overhead_gib=0).total

    return max(need(one) for one in done if one.gradient)


def planned_engine(engine: EngineMemory, dtype: str, shape: Geometry, scored: int) -> float:
    """Return the bytes that the plan states for an engine, corrected for a CPU.

    `scored` is the number of positions of a canary's longest prompt, or 0 if the engine scores
    none. On a CPU, vLLM packs every matrix for oneDNN, but also keeps the originals of the
    embedding and of the head. The function adds these originals. On a CPU, but not on a GPU,
    log_softmax also copies 16-bit logits to float32. The function adds these copies, too.
    """
    element = element_bytes(dtype)
    kept = 2 * element * shape.vocab * shape.hidden
    copied = 4 * scored * shape.vocab if element < 4 else 0
    scoring = engine.scoring + copied if scored else 0.0
    return replace(engine, scoring=scoring).total + kept


def job_engine(
    config: PlatformConfig, job: str, shape: Geometry, tokens: Lengths, assumed: Assumptions
) -> EngineMemory:
    """Return the plan of a job's engine, for as many requests at once as the job sends here.

    Without chunked prefill, an engine on a CPU computes up to engine.max_model_len tokens in a
    pass. The requests of evaluate and serve are too few for such a pass. Their largest pass has the
    prompts of all requests at once, each with a whole image.
    """
    settings, grpo = config.engine, config.grpo
    wanted, requests = grpo.groups_in_flight * grpo.group_size, settings.max_requests
    most = max(settings.max_batched_tokens, settings.max_model_len)
    at_once = {"evaluate": config.evaluate.questions, "serve": 1}.get(job)
    if at_once is not None:
        wanted, requests = at_once, min(requests, at_once)
        most = min(most, at_once * (tokens.text + tokens.full))
    changes = {"max_batched_tokens": most, "max_requests": requests}
    settings = settings.model_copy(update=changes)
    return engine_memory(settings, config.policy.lora_rank, wanted, shape, tokens, assumed)


def rows(config: PlatformConfig, reports: dict[str, dict[str, Any]]) -> Iterator[Row]:
    """Yield the rows of all jobs that ran."""
    family = model_family(config.policy)
    shape, limits = geometry(config.policy.base, family), vision_limits(config.method, family)
    calls = _last(reports["grpo"]["metrics"], "call/rate") if "grpo" in reports else 0.0
    assumed = Assumptions(call_rate=calls, overhead_gib=0.0, gpu_gib=1000.0)
    tokens = lengths(config.method, config.engine, config.grpo.max_tokens, limits, assumed)
    for job, report in reports.items():
        engine = job_engine(config, job, shape, tokens, assumed)
        peak = engine_peak(report)
        if peak is not None:
            scored = tokens.called + tokens.crop if job in SCORED else 0
            planned = planned_engine(engine, config.engine.dtype, shape, scored)
            yield Row(job, "engine, peak memory", "GB", peak / 1e9, planned / 1e9)
        if job in TRAINERS:
            yield from _trainer_rows(config, job, report, shape, tokens, engine, assumed)
    if "grpo" in reports:
        yield from _grpo_rows(config, reports["grpo"]["metrics"], shape, assumed)


def _trainer_rows(
    config: PlatformConfig,
    job: str,
    report: dict[str, Any],
    shape: Geometry,
    tokens: Lengths,
    engine: EngineMemory,
    assumed: Assumptions,
) -> Iterator[Row]:
    done, policy = passes(report["events"]), config.policy
    learning = [one for one in done if one.gradient]
    settings = config.sft if job == "sft" else config.grpo
    planned = planned_trainer(config, settings, shape, done)
    yield Row(job, "trainer, peak memory", "GB", trainer_peak(report) / 1e9, planned / 1e9)
    runs = sum(one.layers for one in learning) / len(learning)
    wanted = 1.0 + policy.gradient_checkpointing
    yield Row(job, "runs of a layer per pass with gradients", "", runs, wanted)
    if job == "sft":
        samples = config.data.train_samples
        hours = sft_hours(config.sft, policy, samples, shape, tokens, assumed)
    else:
        hours = grpo_hours(config.grpo, policy, 1, shape, tokens, engine, assumed)
    yield Row(job, "padding", "%", padding(learning), hours.ranks.padding)


def _grpo_rows(
    config: PlatformConfig,
    metrics: Sequence[dict[str, Any]],
    shape: Geometry,
    assumed: Assumptions,
) -> Iterator[Row]:
    trained, _ = trained_parameters(config.policy, shape)
    bus = traffic(config.grpo, config.policy, config.engine.dtype, trained, assumed)
    size = _last(metrics, "weights/loaded_bytes")
    yield Row("grpo", "a version on the wire", "MB", size / 1e6, bus.delta / 1e6)
    names = ("time/wait", "time/learn", "time/publish")
    seconds = {name: sum(line.get(name, 0.0) for line in metrics) for name in names}
    for name in names:
        share = seconds[name] / sum(seconds.values())
        yield Row("grpo", f"share of a step, {name}", "%", share, None)


def _last(metrics: Sequence[dict[str, Any]], name: str) -> float:
    return next((line[name] for line in reversed(metrics) if name in line), 0.0)


def main() -> None:
    """Print the text of README.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--directory", type=Path, default=Path("runs/rehearsal"))
    directory = parser.parse_args().directory
    config = load(SETUP, options(directory))
    files = {job: directory / "seen" / f"{job}.json" for job in JOBS}
    reports = {job: json.loads(file.read_text()) for job, file in files.items() if file.exists()}
    head = ["| job | figure | seen | planned | |", "|---|---|---|---|---|"]
    table = "\n".join([*head, *map(str, rows(config, reports))])
    seconds = ", ".join(f"{job} {report['seconds']:.0f} s" for job, report in reports.items())
    print(TEMPLATE.read_text("utf-8").replace("TABLE", table).replace("SECONDS", seconds), end="")


if __name__ == "__main__":
    main()
