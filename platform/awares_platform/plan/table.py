"""Formats the sheet of a plan as a text table with lines of at most 140 columns."""

import math
from collections.abc import Sequence
from dataclasses import fields
from operator import attrgetter

from awares_platform.plan.engine import SLOTS
from awares_platform.plan.sheet import JOBS, STAGES, Sheet, gib
from awares_platform.plan.trainer import TrainerMemory

_SHOWN = 6
_BUSY = 0.8
"""The largest share of time that a reward worker may be busy. Episodes come in bursts, so a worker
needs spare time."""
_NAMES = {"layer": "one layer's backward pass", "logits": "or logits, at another time"}
"""Maps a field of TrainerMemory to its name in the table, if the two names differ."""


def render(sheet: Sheet) -> str:
    """Format the sheet as a table. helm/docs/sizing.md explains the table's lines."""
    blocks = [
        _policy(sheet),
        _memory(sheet),
        _engine(sheet),
        _caches(sheet),
        _traffic(sheet),
        _hours(sheet),
        _split(sheet),
        _verdict(sheet),
        _assumptions(sheet),
    ]
    return "\n\n".join("\n".join(block) for block in blocks)


def _row(name: str, *cells: str) -> str:
    return f"  {name:<30}" + "".join(f"{cell:>12}" for cell in cells)


def _head(name: str, *cells: str) -> str:
    return f"{name:<32}" + "".join(f"{cell:>12}" for cell in cells)


def _policy(sheet: Sheet) -> list[str]:
    shape, tokens, policy = sheet.shape, sheet.lengths, sheet.config.policy
    engine = sheet.config.engine
    how = "every weight" if policy.train_vision else "the language model"
    if policy.lora_rank:
        how = f"LoRA rank {policy.lora_rank}"
    return [
        f"{policy.base}: {shape.parameters / 1e9:.2f} B parameters, "
        f"{sheet.trained / 1e6:,.1f} M trained ({how}, {policy.dtype})",
        f"  {sheet.assumed.image} image: low view {tokens.low} tokens, crop {tokens.crop}, "
        f"whole {tokens.full}; episode {tokens.mean:.0f} on average; RTR {tokens.rtr:.2f}",
        _turns(sheet),
        f"  largest legal episode: {tokens.largest.tokens:,} tokens of engine.max_model_len="
        f"{engine.max_model_len:,}, {_images(tokens.largest.images)} of engine.max_images="
        f"{engine.max_images}",
        f"  {sheet.ratios}",
        *(line for text in sheet.ratios.warnings for line in _warning(text)),
    ]


def _warning(text: str) -> list[str]:
    """Return a warning as two lines: the finding and the remedy."""
    finding, _, remedy = text.partition("; ")
    return [f"  WARNING: {finding};", f"    {remedy}"]


def _turns(sheet: Sheet) -> str:
    tokens = sheet.lengths
    first = f"  turn 1 reads {tokens.prompt} tokens and samples {tokens.answer}"
    if sheet.config.method.max_turns == 1:
        return first
    return (
        f"{first}, turn 2 reads {tokens.reply + tokens.crop} more and samples {tokens.answer}: "
        f"{tokens.called} with a call"
    )


def _images(count: int) -> str:
    return f"{count} image{'s' * (count > 1)}"


def _memory(sheet: Sheet) -> list[str]:
    settings = (sheet.config.sft, sheet.config.grpo)
    ranks = (sheet.config.sft.workers, sheet.config.grpo.learner_workers)
    longest = [sheet.trainers[job] for job in JOBS]
    typical = [sheet.typical[job] for job in JOBS]
    parts = [
        _row(
            _NAMES.get(field.name, field.name),
            *(gib(getattr(rank, field.name)) for rank in longest),
        )
        for field in fields(TrainerMemory)
        if any(getattr(rank, field.name) for rank in longest)
    ]
    stages = [
        _row(f"the same with ZeRO-{stage}", *(gib(sheet.stages[job][stage]) for job in JOBS))
        for stage in STAGES
    ]
    micro = (f"{job.zero_stage}, {job.micro_batch}" for job in settings)
    return [
        _head("GPU memory of a trainer, GiB", *JOBS),
        *parts,
        _row("in all, longest sequences", *(gib(rank.total) for rank in longest)),
        _row("in all, typical sequences", *(gib(rank.total) for rank in typical)),
        _row("GPUs", *map(str, ranks)),
        _row("ZeRO stage, micro-batch", *micro),
        *stages,
    ]


def _engine(sheet: Sheet) -> list[str]:
    engine, config = sheet.engine, sheet.config
    size = f"{config.grpo.rollout_actors} of {config.engine.tensor_parallel} GPU"
    return [
        f"GPU memory of a rollout engine ({size}), GiB",
        _row("weights", gib(engine.weights)),
        *_adapters(sheet),
        _row("encoder cache", gib(engine.encoder)),
        _row("workspace, overhead", gib(engine.temporary + engine.overhead)),
        _row("KV cache", gib(max(engine.kv, 0.0)))
        + f"   {engine.kv_token / 1024:.1f} KiB per token",
        _row("episodes sent to it at once", str(engine.wanted)),
        _row("  decoded side by side", str(engine.at_once))
        + f"   engine.max_requests {engine.requests}",
        _row("  that the cache holds", str(engine.typical))
        + f"   {engine.longest} of engine.max_model_len",
    ]


def _adapters(sheet: Sheet) -> list[str]:
    """Return the row of the engine's adapter slots, or no row if the engine has no slots."""
    engine, load = sheet.engine, sheet.hours["grpo"].load_s
    if not engine.adapters:
        return []
    note = f"   {SLOTS} slots; a version is added in {load:.2f} s"
    return [_row("LoRA adapters", gib(engine.adapters)) + note]


def _caches(sheet: Sheet) -> list[str]:
    sizes = sheet.caches

    def pages(cache: int) -> str:
        return f"   {cache // sizes.view} low views, {cache // sizes.page} whole images"

    return [
        "Caches in host memory, GiB at most",
        _row("views of a learner rank", gib(sizes.views)) + pages(sizes.views),
        _row("views of an engine", gib(sizes.processed)) + pages(sizes.processed),
        _row("images of a process", gib(sizes.images)),
    ]


def _traffic(sheet: Sheet) -> list[str]:
    bus, grpo = sheet.traffic, sheet.config.grpo
    seconds = sheet.hours["grpo"].step_s
    up, down = bus.weights_up + bus.checkpoints, bus.weights_down + bus.images
    whole = f"of {megabytes(bus.raw)} unencoded"
    how = whole if bus.changed is None else f"{bus.changed:.1%} changed"
    return [
        "S3 traffic of a learner step, MB",
        _row("one delta, one anchor", megabytes(bus.delta), megabytes(bus.anchor)) + f"   {how}",
        _row("weights up, down", megabytes(bus.weights_up), megabytes(bus.weights_down))
        + f"   {grpo.rollout_actors} reader{'s' * (grpo.rollout_actors > 1)}",
        _row("images down", megabytes(bus.images)),
        _row("checkpoints up", megabytes(bus.checkpoints))
        + f"   every {grpo.checkpoint_every} steps",
        _row("MB/s up, down", f"{up / 1e6 / seconds:.1f}", f"{down / 1e6 / seconds:.1f}"),
        _row("exports at the end", *map(megabytes, sheet.exports.values()))
        + f"   {', '.join(sheet.exports)}",
    ]


def megabytes(count: float) -> str:
    """Format a number of bytes in MB, with one decimal and without the unit."""
    return f"{count / 1e6:,.1f}"


def _hours(sheet: Sheet) -> list[str]:
    def cells(of: str, form: str) -> Sequence[str]:
        return [form.format(attrgetter(of)(sheet.hours[job])) for job in JOBS]

    grpo = sheet.hours["grpo"]
    return [
        _head("Time", *JOBS),
        _row("steps", *cells("steps", "{:,}")),
        _row("learning, s a step", *cells("ranks.seconds", "{:.2f}")),
        _row("  that images take", *cells("ranks.images_s", "{:.2f}")),
        _row("  passes of a rank", *cells("ranks.passes", "{}")),
        _row("  padding", *cells("ranks.padding", "{:.0%}")),
        _row("  wait for the longest rank", *cells("ranks.waiting", "{:.0%}")),
        _row("rollouts, s a step", "", f"{grpo.rollout_s:.2f}"),
        _row("  preparing images beside", "", f"{grpo.views_s:.2f}"),
        *_rewards(sheet),
        _row("learner waits, s a step", "", f"{grpo.learner_waits:.2f}"),
        _row("rollouts wait, s a step", "", f"{grpo.rollouts_wait:.2f}"),
        _row("GPUs", *cells("gpus", "{}")),
        _row("hours", *cells("hours", "{:.1f}")),
        _row("GPU-hours", *cells("gpu_hours", "{:.0f}")),
    ]


def _rewards(sheet: Sheet) -> list[str]:
    busy, workers = sheet.reward_cpus, sheet.config.grpo.reward_workers
    held = f"{workers} reward worker{'s' * (workers > 1)}" if workers else "the controller"
    row = _row("  CPUs that rewards keep busy", "", f"{busy:.2f}") + f"   of {held}"
    if busy <= _BUSY * max(workers, 1):
        return [row]
    return [row, f"  WARNING: set grpo.reward_workers={math.ceil(busy / _BUSY)} or more"]


def _split(sheet: Sheet) -> list[str]:
    advice, best = sheet.advice, sheet.advice.best
    if best is None:
        return ["No division into learner ranks and rollout actors fits these GPUs."]
    shown = sorted(advice.divisions, key=lambda division: division.hours)[:_SHOWN]
    named = ", ".join(f"{division}: {division.hours:.1f} h" for division in shown)
    lines = [f"Learner ranks + rollout actors, and hours of grpo: {named}"]
    if advice.followed:
        return [*lines, f"  This setup has {advice.chosen}, and no other division is better."]
    return [
        *lines,
        f"  WARNING: this setup has {advice.chosen}, which takes {advice.chosen.hours:.1f} h; "
        f"{best} takes {best.hours:.1f} h ({best.hours / advice.chosen.hours - 1:+.0%});",
        f"    set grpo.learner_workers={best.learners} grpo.rollout_actors={best.actors}",
    ]


def _verdict(sheet: Sheet) -> list[str]:
    return [f"DOES NOT FIT: {fault}." for fault in sheet.faults] or [
        f"It fits GPUs of {sheet.assumed.gpu_gib:g} GiB."
    ]


def _assumptions(sheet: Sheet) -> list[str]:
    assumed = sheet.assumed
    return [
        f"Assumed: {assumed.peak_tflops:g} TFLOPS and {assumed.hbm_gbs:g} GB/s a GPU, "
        f"MFU {assumed.train_mfu:g} training and {assumed.prefill_mfu:g} reading, "
        f"{assumed.decode_efficiency:g} of the",
        f"bandwidth sampling, calls {assumed.call_rate:g} an episode, "
        f"{assumed.answer_tokens} tokens a turn, {assumed.overhead_gib:g} GiB overhead. "
        "`awares plan --help` lists them.",
        f"Assumed: a CPU thread prepares an image in {assumed.image_ms:g} ms and a crop in "
        f"{assumed.crop_ms:g} ms; equal episodes are not merged.",
        "Not counted: start-up, optimizer and publication time, evaluation, waiting for nodes.",
    ]
