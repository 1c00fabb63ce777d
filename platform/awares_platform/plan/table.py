"""Formats the sheet of a plan as a text table with lines of at most 140 columns."""

from collections.abc import Sequence
from dataclasses import fields

from awares_platform.plan.sheet import JOBS, STAGES, Sheet, gib
from awares_platform.plan.trainer import TrainerMemory


def render(sheet: Sheet) -> str:
    """Format the sheet as a table. helm/docs/sizing.md explains the table's lines."""
    blocks = [
        _policy(sheet),
        _memory(sheet),
        _engine(sheet),
        _traffic(sheet),
        _hours(sheet),
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
    how = "every weight" if policy.train_vision else "the language model"
    if policy.lora_rank:
        how = f"LoRA rank {policy.lora_rank}"
    return [
        f"{policy.base}: {shape.parameters / 1e9:.2f} B parameters, "
        f"{sheet.trained / 1e6:,.1f} M trained ({how}, {policy.dtype})",
        f"  {sheet.assumed.image} image: low view {tokens.low} tokens, crop {tokens.crop}, "
        f"whole {tokens.full}; episode {tokens.mean:.0f} on average, {tokens.called} with a call, "
        f"{tokens.widest} at most; RTR {tokens.rtr:.2f}",
        f"  {sheet.ratios}",
        *(line for text in sheet.ratios.warnings for line in _warning(text)),
    ]


def _warning(text: str) -> list[str]:
    """Return a warning as two lines: the finding and the remedy."""
    finding, _, remedy = text.partition("; ")
    return [f"  WARNING: {finding};", f"    {remedy}"]


def _memory(sheet: Sheet) -> list[str]:
    settings = (sheet.config.sft, sheet.config.grpo)
    ranks = (sheet.config.sft.workers, sheet.config.grpo.learner_workers)
    longest = [sheet.trainers[job] for job in JOBS]
    typical = [sheet.typical[job] for job in JOBS]
    parts = [
        _row(field.name, *(gib(getattr(rank, field.name)) for rank in longest))
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
        _row("workspace, overhead", gib(engine.workspace + engine.overhead)),
        _row("KV cache", gib(max(engine.kv, 0.0)))
        + f"   {engine.kv_token / 1024:.1f} KiB per token",
        _row("episodes sent to it at once", str(engine.wanted)),
        _row("  decoded side by side", str(engine.at_once))
        + f"   engine.max_requests {engine.requests}",
        _row("  that the cache holds", str(engine.typical))
        + f"   {engine.longest} of engine.max_model_len",
    ]


def _traffic(sheet: Sheet) -> list[str]:
    bus, grpo = sheet.traffic, sheet.config.grpo
    seconds = sheet.hours["grpo"].step_s
    up, down = bus.weights_up + bus.checkpoints, bus.weights_down + bus.images
    return [
        "S3 traffic of a learner step, MB",
        _row("one delta, one anchor", megabytes(bus.delta), megabytes(bus.anchor))
        + f"   {bus.changed:.1%} changed",
        _row("weights up, down", megabytes(bus.weights_up), megabytes(bus.weights_down))
        + f"   {grpo.rollout_actors} readers",
        _row("images down", megabytes(bus.images)),
        _row("checkpoints up", megabytes(bus.checkpoints))
        + f"   every {grpo.checkpoint_every} steps",
        _row("MB/s up, down", f"{up / 1e6 / seconds:.1f}", f"{down / 1e6 / seconds:.1f}"),
    ]


def megabytes(count: float) -> str:
    """Format a number of bytes in MB, with one decimal and without the unit."""
    return f"{count / 1e6:,.1f}"


def _hours(sheet: Sheet) -> list[str]:
    def cells(of: str, form: str) -> Sequence[str]:
        return [form.format(getattr(sheet.hours[job], of)) for job in JOBS]

    return [
        _head("Time", *JOBS),
        _row("steps", *cells("steps", "{:,}")),
        _row("learning, s a step", *cells("learn_s", "{:.2f}")),
        _row("rollouts, s a step", "", f"{sheet.hours['grpo'].rollout_s:.2f}"),
        _row("GPUs", *cells("gpus", "{}")),
        _row("hours", *cells("hours", "{:.1f}")),
        _row("GPU-hours", *cells("gpu_hours", "{:.0f}")),
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
        "Not counted: start-up, image decoding on CPUs, optimizer and publication time, "
        "evaluation, waiting for nodes.",
    ]
