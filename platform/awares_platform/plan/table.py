"""A plan's sheet as the table that a person reads."""

from collections.abc import Sequence
from dataclasses import fields

from awares_platform.plan.sheet import JOBS, STAGES, Sheet, gib
from awares_platform.plan.trainer import TrainerMemory


def render(sheet: Sheet) -> str:
    """The table that a person reads."""
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
    how = (
        f"LoRA rank {policy.lora_rank}"
        if policy.lora_rank
        else "every weight"
        if policy.train_vision
        else "the language model"
    )
    return [
        f"{policy.base}: {shape.parameters / 1e9:.2f} B parameters, {sheet.trained / 1e6:,.1f} M trained ({how}, {policy.dtype})",
        f"  {sheet.assumed.image} image: low view {tokens.low} tokens, crop {tokens.crop}, whole {tokens.full}; "
        f"episode {tokens.mean:.0f} on average, {tokens.called} with a call, {tokens.widest} at most; RTR {tokens.rtr:.2f}",
    ]


def _memory(sheet: Sheet) -> list[str]:
    settings = (sheet.config.sft, sheet.config.grpo)
    lines = [_head("GPU memory of a trainer, GiB", *JOBS)]
    lines += [
        _row(field.name, *(gib(getattr(sheet.trainers[job], field.name)) for job in JOBS))
        for field in fields(TrainerMemory)
        if any(getattr(sheet.trainers[job], field.name) for job in JOBS)
    ]
    lines.append(
        _row("in all, longest sequences", *(gib(sheet.trainers[job].total) for job in JOBS))
    )
    lines.append(
        _row("in all, typical sequences", *(gib(sheet.typical[job].total) for job in JOBS))
    )
    ranks = (sheet.config.sft.workers, sheet.config.grpo.learner_workers)
    lines.append(_row("GPUs", *(str(count) for count in ranks)))
    lines.append(
        _row(
            "ZeRO stage, micro-batch", *(f"{one.zero_stage}, {one.micro_batch}" for one in settings)
        )
    )
    for stage in STAGES:
        lines.append(
            _row(f"the same with ZeRO-{stage}", *(gib(sheet.stages[job][stage]) for job in JOBS))
        )
    return lines


def _engine(sheet: Sheet) -> list[str]:
    engine, config = sheet.engine, sheet.config
    return [
        f"GPU memory of a rollout engine ({config.grpo.rollout_actors} of {config.engine.tensor_parallel} GPU), GiB",
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
    """Bytes as MB."""
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
        f"Assumed: {assumed.peak_tflops:g} TFLOPS and {assumed.hbm_gbs:g} GB/s a GPU, MFU {assumed.train_mfu:g} training and "
        f"{assumed.prefill_mfu:g} reading, {assumed.decode_efficiency:g} of the",
        f"bandwidth sampling, calls {assumed.call_rate:g} an episode, {assumed.answer_tokens} tokens a turn, "
        f"{assumed.overhead_gib:g} GiB overhead. `awares plan --help` lists them.",
        "Not counted: start-up, image decoding on CPUs, optimizer and publication time, evaluation, waiting for nodes.",
    ]
