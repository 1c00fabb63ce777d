"""The sheet of a plan: everything computed once, then shown as a table or as JSON."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from awares.errors import ConfigError
from awares_platform.config import PlatformConfig
from awares_platform.plan.assumptions import Assumptions
from awares_platform.plan.engine import EngineMemory, engine_memory
from awares_platform.plan.geometry import Geometry, geometry
from awares_platform.plan.hours import JobHours, grpo_hours, sft_hours
from awares_platform.plan.lengths import Lengths, lengths
from awares_platform.plan.traffic import Traffic, traffic
from awares_platform.plan.trainer import GIB, TrainerMemory, memory, trained_parameters, trainer

STAGES = (1, 2, 3)
_JOBS = ("sft", "grpo")


@dataclass(frozen=True, slots=True)
class Sheet:
    """All figures of a plan. `trainers` maps "sft" and "grpo" to the memory of a rank on the longest micro-batch, `typical` on an average
    one; `stages` maps each job to the longest by ZeRO stage.

    Example:
        make(load("jobs/configs/awares-7b.toml"), Assumptions()).hours["grpo"].gpu_hours
    """

    config: PlatformConfig
    assumed: Assumptions
    shape: Geometry
    trained: int
    frozen: int
    lengths: Lengths
    trainers: dict[str, TrainerMemory]
    typical: dict[str, TrainerMemory]
    stages: dict[str, dict[int, float]]
    engine: EngineMemory
    traffic: Traffic
    hours: dict[str, JobHours]

    @property
    def faults(self) -> list[str]:
        """What does not fit, each with a remedy."""
        return [*(_trainer_fault(self, job) for job in _JOBS if self.trainers[job].total > self.gpu), *_engine_faults(self)]

    @property
    def gpu(self) -> float:
        """Bytes of one GPU."""
        return self.assumed.gpu_gib * GIB

    def as_json(self) -> dict[str, Any]:
        """Figures in bytes, tokens, seconds and hours."""
        return {
            "policy": {"base": self.config.policy.base, "parameters": self.shape.parameters, "trained": self.trained, **asdict(self.shape)},
            "tokens": {**asdict(self.lengths), "called": self.lengths.called, "mean": self.lengths.mean, "rtr": self.lengths.rtr},
            "trainer_bytes": {job: {**asdict(rank), "total": rank.total} for job, rank in self.trainers.items()},
            "trainer_bytes_typical": {job: rank.total for job, rank in self.typical.items()},
            "trainer_bytes_by_zero_stage": self.stages,
            "engine": {**asdict(self.engine), "at_once": self.engine.at_once},
            "bytes_per_step": asdict(self.traffic),
            "hours": {job: asdict(hours) for job, hours in self.hours.items()},
            "faults": self.faults,
            "assumptions": asdict(self.assumed),
        }


def make(config: PlatformConfig, assumed: Assumptions) -> Sheet:
    """The plan of a setup. Raises ConfigError for a setup that runs on CPUs, or a value that no GPU run can have."""
    assumed.check()
    if config.grpo.learner_gpus == 0 or config.grpo.rollout_gpus == 0 or not config.sft.use_gpu:
        raise ConfigError(
            f"sft.use_gpu={str(config.sft.use_gpu).lower()}, grpo.learner_gpus={config.grpo.learner_gpus:g}, grpo.rollout_gpus="
            f"{config.grpo.rollout_gpus:g}: a plan is for GPUs; set them to true, 1 and 1, or give --config jobs/configs/awares-7b.toml"
        )
    shape = geometry(config.policy.base)
    tokens = lengths(config, shape, assumed)
    trained, frozen = trained_parameters(config, shape)
    engine = engine_memory(config, shape, tokens, assumed)
    longest = {job: trainer(config, shape, tokens, job, typical=False) for job in _JOBS}
    typical = {job: trainer(config, shape, tokens, job, typical=True) for job in _JOBS}
    return Sheet(
        config=config,
        assumed=assumed,
        shape=shape,
        trained=trained,
        frozen=frozen,
        lengths=tokens,
        trainers={job: memory(rank, shape, assumed.overhead_gib) for job, rank in longest.items()},
        typical={job: memory(rank, shape, assumed.overhead_gib) for job, rank in typical.items()},
        stages={
            job: {stage: memory(replace(rank, stage=stage), shape, assumed.overhead_gib).total for stage in STAGES}
            for job, rank in longest.items()
        },
        engine=engine,
        traffic=traffic(config, trained, assumed),
        hours={"sft": sft_hours(config, shape, tokens, assumed), "grpo": grpo_hours(config, shape, tokens, engine, assumed)},
    )


def _trainer_fault(sheet: Sheet, job: str) -> str:
    rank, settings = sheet.trainers[job], sheet.config.sft if job == "sft" else sheet.config.grpo
    ways = [f"{job}.zero_stage=3" if settings.zero_stage < 3 else f"more {'sft.workers' if job == 'sft' else 'grpo.learner_workers'}"]
    if settings.micro_batch > 1:
        ways.append(f"{job}.micro_batch={settings.micro_batch // 2}")
    if not sheet.config.policy.gradient_checkpointing:
        ways.append("policy.gradient_checkpointing=true")
    if not sheet.config.policy.lora_rank:
        ways.append("policy.lora_rank=8")
    need = f"a rank of {job} needs {gib(rank.total)} GiB of {sheet.assumed.gpu_gib:g}"
    return f"{need}; try {', '.join(ways)}, or a lower engine.max_model_len"


def _engine_faults(sheet: Sheet) -> list[str]:
    engine, settings = sheet.engine, sheet.config.engine
    if engine.longest >= 1:
        return []
    return [
        f"the KV cache has {gib(max(engine.kv, 0.0))} GiB, too little for one sequence of engine.max_model_len={settings.max_model_len}; "
        f"lower it, or raise engine.gpu_memory_utilization or engine.tensor_parallel={settings.tensor_parallel}"
    ]


def gib(count: float) -> str:
    """Bytes as GiB with one decimal."""
    return f"{count / GIB:.1f}"


def render(sheet: Sheet) -> str:
    """The table that a person reads."""
    blocks = [_policy(sheet), _memory(sheet), _engine(sheet), _traffic(sheet), _hours(sheet), _verdict(sheet), _assumptions(sheet)]
    return "\n\n".join("\n".join(block) for block in blocks)


def _row(name: str, *cells: str) -> str:
    return f"  {name:<30}" + "".join(f"{cell:>12}" for cell in cells)


def _head(name: str, *cells: str) -> str:
    return f"{name:<32}" + "".join(f"{cell:>12}" for cell in cells)


def _policy(sheet: Sheet) -> list[str]:
    shape, tokens, policy = sheet.shape, sheet.lengths, sheet.config.policy
    how = f"LoRA rank {policy.lora_rank}" if policy.lora_rank else "every weight" if policy.train_vision else "the language model"
    return [
        f"{policy.base}: {shape.parameters / 1e9:.2f} B parameters, {sheet.trained / 1e6:,.1f} M trained ({how}, {policy.dtype})",
        f"  {sheet.assumed.image} image: low view {tokens.low} tokens, crop {tokens.crop}, whole {tokens.full}; "
        f"episode {tokens.mean:.0f} on average, {tokens.called} with a call, {tokens.widest} at most; RTR {tokens.rtr:.2f}",
    ]


def _memory(sheet: Sheet) -> list[str]:
    settings = (sheet.config.sft, sheet.config.grpo)
    lines = [_head("GPU memory of a trainer, GiB", *_JOBS)]
    lines += [
        _row(field.name, *(gib(getattr(sheet.trainers[job], field.name)) for job in _JOBS))
        for field in fields(TrainerMemory)
        if any(getattr(sheet.trainers[job], field.name) for job in _JOBS)
    ]
    lines.append(_row("in all, longest sequences", *(gib(sheet.trainers[job].total) for job in _JOBS)))
    lines.append(_row("in all, typical sequences", *(gib(sheet.typical[job].total) for job in _JOBS)))
    ranks = (sheet.config.sft.workers, sheet.config.grpo.learner_workers)
    lines.append(_row("GPUs", *(str(count) for count in ranks)))
    lines.append(_row("ZeRO stage, micro-batch", *(f"{one.zero_stage}, {one.micro_batch}" for one in settings)))
    for stage in STAGES:
        lines.append(_row(f"the same with ZeRO-{stage}", *(gib(sheet.stages[job][stage]) for job in _JOBS)))
    return lines


def _engine(sheet: Sheet) -> list[str]:
    engine, config = sheet.engine, sheet.config
    return [
        f"GPU memory of a rollout engine ({config.grpo.rollout_actors} of {config.engine.tensor_parallel} GPU), GiB",
        _row("weights", gib(engine.weights)),
        _row("workspace, overhead", gib(engine.workspace + engine.overhead)),
        _row("KV cache", gib(max(engine.kv, 0.0))) + f"   {engine.kv_token / 1024:.1f} KiB per token",
        _row("episodes sent to it at once", str(engine.wanted)),
        _row("  decoded side by side", str(engine.at_once)) + f"   engine.max_requests {engine.requests}",
        _row("  that the cache holds", str(engine.typical)) + f"   {engine.longest} of engine.max_model_len",
    ]


def _traffic(sheet: Sheet) -> list[str]:
    bus, grpo = sheet.traffic, sheet.config.grpo
    seconds = sheet.hours["grpo"].step_s
    up, down = bus.weights_up + bus.checkpoints, bus.weights_down + bus.images
    return [
        "S3 traffic of a learner step, MB",
        _row("one delta, one anchor", megabytes(bus.delta), megabytes(bus.anchor)) + f"   {bus.changed:.1%} changed",
        _row("weights up, down", megabytes(bus.weights_up), megabytes(bus.weights_down)) + f"   {grpo.rollout_actors} readers",
        _row("images down", megabytes(bus.images)),
        _row("checkpoints up", megabytes(bus.checkpoints)) + f"   every {grpo.checkpoint_every} steps",
        _row("MB/s up, down", f"{up / 1e6 / seconds:.1f}", f"{down / 1e6 / seconds:.1f}"),
    ]


def megabytes(count: float) -> str:
    """Bytes as MB."""
    return f"{count / 1e6:,.1f}"


def _hours(sheet: Sheet) -> list[str]:
    def cells(of: str, form: str) -> Sequence[str]:
        return [form.format(getattr(sheet.hours[job], of)) for job in _JOBS]

    return [
        _head("Time", *_JOBS),
        _row("steps", *cells("steps", "{:,}")),
        _row("learning, s a step", *cells("learn_s", "{:.2f}")),
        _row("rollouts, s a step", "", f"{sheet.hours['grpo'].rollout_s:.2f}"),
        _row("GPUs", *cells("gpus", "{}")),
        _row("hours", *cells("hours", "{:.1f}")),
        _row("GPU-hours", *cells("gpu_hours", "{:.0f}")),
    ]


def _verdict(sheet: Sheet) -> list[str]:
    return [f"DOES NOT FIT: {fault}." for fault in sheet.faults] or [f"It fits GPUs of {sheet.assumed.gpu_gib:g} GiB."]


def _assumptions(sheet: Sheet) -> list[str]:
    assumed = sheet.assumed
    return [
        f"Assumed: {assumed.peak_tflops:g} TFLOPS and {assumed.hbm_gbs:g} GB/s a GPU, MFU {assumed.train_mfu:g} training and "
        f"{assumed.prefill_mfu:g} reading, {assumed.decode_efficiency:g} of the",
        f"bandwidth sampling, calls {assumed.call_rate:g} an episode, {assumed.answer_tokens} tokens a turn, "
        f"{assumed.overhead_gib:g} GiB overhead. `awares plan --help` lists them.",
        "Not counted: start-up, image decoding on CPUs, optimizer and publication time, evaluation, waiting for nodes.",
    ]
