"""Prints a table that compares the rehearsal's measurements with the values of `awares plan`.

    PYTHONPATH=.:platform python -m tests.rehearsal.table [--directory runs/rehearsal]

The script reads the reports of run.py, and prints the whole text of this folder's README.md.
"""

import argparse
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from awares_platform.config import PlatformConfig, load
from awares_platform.config.grpo import GrpoConfig
from awares_platform.config.sft import SftConfig
from awares_platform.method.environment import vision_limits
from awares_platform.method.family import model_family
from awares_platform.plan.assumptions import Assumptions
from awares_platform.plan.engine import EngineMemory, engine_memory
from awares_platform.plan.geometry import Geometry, geometry
from awares_platform.plan.lengths import Lengths, lengths
from awares_platform.plan.traffic import traffic
from awares_platform.plan.trainer import element_bytes, memory, trained_parameters, trainer
from tests.rehearsal.figures import Figures, Pass, compact, from_json, to_json
from tests.rehearsal.run import JOBS, SETUP
from tests.rehearsal.work import step_work

TEMPLATE = Path(__file__).with_name("template.md")
"""The text of README.md, in which TABLE and SECONDS are placeholders."""
FIGURES = Path(__file__).with_name("figures")
"""The folder with the measured numbers of the committed table, and the policy's config.json."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Example:
        Row("grpo", "trainer, peak memory", "GB", 7.61, 7.9)
    """

    job: str
    what: str
    """The name of the figure."""
    unit: str
    """The unit of both values."""
    found: float
    """The measured value."""
    planned: float | None
    """The plan's value, or None if the plan has no value to compare."""

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


def padding(done: Sequence[Pass]) -> float:
    """Return the share of padding among all positions that the passes compute."""
    return 1 - sum(one.tokens for one in done) / sum(one.rows * one.width for one in done)


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
    none.
    """
    element = element_bytes(dtype)
    # On a CPU, vLLM packs the embedding and the head for oneDNN, but keeps the originals too.
    kept = 2 * element * shape.vocab * shape.hidden
    # On a CPU, log_softmax copies 16-bit logits to float32.
    copied = 4 * scored * shape.vocab if element < 4 else 0
    scoring = engine.scoring + copied if scored else 0.0
    return replace(engine, scoring=scoring).total + kept


def longest_prompt(config: PlatformConfig, job: str, tokens: Lengths) -> int:
    """Return the number of tokens of the longest canary prompt, or 0 if a job scores no canary."""
    prompts = {"grpo": config.data.train_samples, "evaluate": config.evaluate.questions}.get(job)
    if prompts is None:
        return 0
    # From the third prompt on, a prompt can have a crop of half of the image. Such a prompt is the
    # longest one. A canary has no more prompts than the job has questions.
    return tokens.called + (tokens.crop if prompts > 2 else 0)


def job_engine(
    config: PlatformConfig, job: str, shape: Geometry, tokens: Lengths, assumed: Assumptions
) -> EngineMemory:
    """Return the memory that the plan states for a job's engine at the rehearsal's load."""
    settings, grpo = config.engine, config.grpo
    wanted, requests = grpo.groups_in_flight * grpo.group_size, settings.max_requests
    # On a CPU, vLLM has no chunked prefill, so one pass may have `max_model_len` tokens.
    most = max(settings.max_batched_tokens, settings.max_model_len)
    at_once = {"evaluate": config.evaluate.questions, "serve": 1}.get(job)
    # The jobs evaluate and serve send too few requests to fill such a pass.
    if at_once is not None:
        wanted, requests = at_once, min(requests, at_once)
        most = min(most, at_once * (tokens.text + tokens.full))
    changes = {"max_batched_tokens": most, "max_requests": requests}
    settings = settings.model_copy(update=changes)
    return engine_memory(settings, config.policy.lora_rank, wanted, shape, tokens, assumed)


def planned_padding(done: Sequence[Pass], tokens: Lengths) -> float:
    """Return the share of padding that the plan states for the passes in `done`."""
    more = tokens.called - tokens.plain
    # The number of tokens tells how many episodes of a pass request a crop.
    calls = [round((one.tokens - one.rows * tokens.plain) / more) for one in done]
    used = sum(one.rows * tokens.plain for one in done) + sum(calls) * more
    widest = (tokens.plain + more * (call > 0) for call in calls)
    return 1 - used / sum(one.rows * width for one, width in zip(done, widest, strict=True))


def rows(config: PlatformConfig, seen: dict[str, Figures]) -> Iterator[Row]:
    """Yield the rows of all jobs that ran."""
    family = model_family(config.policy)
    shape, limits = geometry(config.policy.base, family), vision_limits(config.method, family)
    calls = last(seen["grpo"].metrics, "call/rate") if "grpo" in seen else 0.0
    assumed = Assumptions(call_rate=calls, overhead_gib=0.0, gpu_gib=1000.0)
    tokens = lengths(config.method, config.engine, config.grpo.max_tokens, limits, assumed)
    for job, figures in seen.items():
        engine = job_engine(config, job, shape, tokens, assumed)
        if figures.engine is not None:
            scored = longest_prompt(config, job, tokens)
            share = scored / (tokens.called + tokens.crop)
            engine = replace(engine, scoring=engine.scoring * share)
            planned = planned_engine(engine, config.engine.dtype, shape, scored)
            yield Row(job, "engine, peak memory", "GB", figures.engine / 1e9, planned / 1e9)
        if figures.trainer is not None:
            yield from _trainer_rows(config, job, figures, shape, tokens)
    if "grpo" in seen:
        yield from _grpo_rows(config, seen["grpo"], shape, tokens, assumed)


def _trainer_rows(
    config: PlatformConfig, job: str, figures: Figures, shape: Geometry, tokens: Lengths
) -> Iterator[Row]:
    assert figures.trainer is not None
    learning = [one for one in figures.passes if one.gradient]
    settings = config.sft if job == "sft" else config.grpo
    planned = planned_trainer(config, settings, shape, figures.passes)
    yield Row(job, "trainer, peak memory", "GB", figures.trainer / 1e9, planned / 1e9)
    runs = sum(one.layers for one in learning) / len(learning)
    wanted = 1.0 + config.policy.gradient_checkpointing
    yield Row(job, "runs of a layer per pass with gradients", "", runs, wanted)
    yield Row(job, "padding", "%", padding(learning), planned_padding(learning, tokens))
    if job == "sft":
        seconds = (total(figures.metrics, name) for name in ("time/images", "time/step"))
        images, steps = seconds
        yield Row(job, "share of a step, images awaited", "%", images / steps, 0.0)


def _grpo_rows(
    config: PlatformConfig,
    figures: Figures,
    shape: Geometry,
    tokens: Lengths,
    assumed: Assumptions,
) -> Iterator[Row]:
    metrics = figures.metrics
    trained, _ = trained_parameters(config.policy, shape)
    bus = traffic(config.grpo, config.policy, config.engine.dtype, trained, assumed)
    published = [line for line in metrics if "weights/bytes" in line]
    first, later = published[0]["weights/bytes"], published[-1]["weights/bytes"]
    raw = first / published[0]["weights/share"]
    yield Row("grpo", "a version, unencoded", "MB", raw / 1e6, bus.raw / 1e6)
    yield Row("grpo", "first version on the wire, an anchor", "MB", first / 1e6, bus.anchor / 1e6)
    yield Row("grpo", "next version on the wire, a delta", "MB", later / 1e6, bus.delta / 1e6)
    work = step_work(figures.passes, metrics, config.grpo, shape, tokens)
    names = ("time/wait", "time/learn", "time/publish")
    seconds = [total(metrics, name) for name in names]
    for name, one, planned in zip(names, seconds, work, strict=True):
        what = f"share of a step, {name}"
        yield Row("grpo", what, "%", one / sum(seconds), planned / sum(work))


def total(metrics: Sequence[dict[str, float]], name: str) -> float:
    """Return the sum of a metric over all steps."""
    return sum(line.get(name, 0.0) for line in metrics)


def last(metrics: Sequence[dict[str, float]], name: str) -> float:
    """Return the last value of a metric, or 0 if it has no value."""
    return next((line[name] for line in reversed(metrics) if name in line), 0.0)


def text(config: PlatformConfig, seen: dict[str, Figures]) -> str:
    """Return the text of README.md."""
    head = ["| job | figure | seen | planned | |", "|---|---|---|---|---|"]
    table = "\n".join([*head, *map(str, rows(config, seen))])
    seconds = ", ".join(f"{job} {figures.seconds:.0f} s" for job, figures in seen.items())
    return TEMPLATE.read_text("utf-8").replace("TABLE", table).replace("SECONDS", seconds)


def committed() -> tuple[PlatformConfig, dict[str, Figures]]:
    """Return the setup and each job's figures, from which the committed table was made."""
    files = {job: FIGURES / f"{job}.json" for job in JOBS}
    found = {job: json.loads(file.read_text()) for job, file in files.items() if file.exists()}
    config = load(SETUP, [f"policy.base={FIGURES}"])
    return config, {job: from_json(values) for job, values in found.items()}


def write_figures(directory: Path) -> None:
    """Replace the committed figures by the figures of the rehearsal in `directory`."""
    shutil.copyfile(directory / "policy" / "config.json", FIGURES / "config.json")
    for job in JOBS:
        seen, kept = directory / "seen" / f"{job}.json", FIGURES / f"{job}.json"
        kept.unlink(missing_ok=True)
        if seen.exists():
            figures = compact(json.loads(seen.read_text()))
            kept.write_text(json.dumps(to_json(figures)) + "\n")


def main() -> None:
    """Write the figures of a rehearsal, and print the text of README.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--directory", type=Path, default=Path("runs/rehearsal"))
    write_figures(parser.parse_args().directory)
    print(text(*committed()), end="")


if __name__ == "__main__":
    main()
