"""Computes the sheet of a plan. The sheet holds all figures and converts them to JSON."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from awares.errors import ConfigError
from awares.tokens import Size
from awares_platform.config import PlatformConfig
from awares_platform.config.grpo import GrpoConfig
from awares_platform.config.sft import SftConfig
from awares_platform.method.environment import vision_limits
from awares_platform.method.family import model_family
from awares_platform.method.ratios import Ratios, ratios
from awares_platform.plan.assumptions import Assumptions
from awares_platform.plan.caches import Caches, caches
from awares_platform.plan.division import Advice, advise
from awares_platform.plan.engine import EngineMemory, engine_memory
from awares_platform.plan.geometry import Geometry, geometry
from awares_platform.plan.hours import JobHours, grpo_hours, reward_cpus, sft_hours
from awares_platform.plan.lengths import Lengths, lengths
from awares_platform.plan.traffic import Traffic, traffic
from awares_platform.plan.trainer import (
    GIB,
    Trainer,
    TrainerMemory,
    element_bytes,
    memory,
    trained_parameters,
    trainer,
)

STAGES = (1, 2, 3)
JOBS = ("sft", "grpo")


@dataclass(frozen=True, slots=True)
class Sheet:
    """All figures of a plan.

    Example:
        make(load("jobs/configs/awares-7b.toml"), Assumptions()).hours["grpo"].gpu_hours
    """

    config: PlatformConfig
    assumed: Assumptions
    shape: Geometry
    trained: int
    """Number of trained parameters."""
    frozen: int
    """Number of frozen parameters."""
    lengths: Lengths
    ratios: Ratios
    trainers: dict[str, TrainerMemory]
    """Memory of one rank of "sft" and of "grpo", with the longest sequences."""
    typical: dict[str, TrainerMemory]
    """Memory of one rank of "sft" and of "grpo", with sequences of typical length."""
    stages: dict[str, dict[int, float]]
    """Bytes of one rank with the longest sequences, by job and ZeRO stage."""
    engine: EngineMemory
    caches: Caches
    traffic: Traffic
    hours: dict[str, JobHours]
    """Time that each job takes."""
    advice: Advice

    @property
    def faults(self) -> list[str]:
        """One message with a remedy for each trainer, engine or request that does not fit."""
        return [
            *(_trainer_fault(self, job) for job in JOBS if self.trainers[job].total > self.gpu),
            *_engine_faults(self),
            *_context_faults(self),
        ]

    @property
    def reward_cpus(self) -> float:
        """The number of CPUs that the rewards of GRPO keep busy."""
        return reward_cpus(self.config.grpo, self.hours["grpo"].step_s, self.assumed)

    @property
    def exports(self) -> dict[str, int]:
        """The bytes of each directory that a finished run exports, by the directory's name."""
        policy = self.config.policy
        element = element_bytes(policy.dtype)
        whole = {"policy": element * self.shape.parameters}
        return whole | ({"adapter": element * self.trained} if policy.lora_rank else {})

    @property
    def gpu(self) -> float:
        """The memory of one GPU of a trainer, in bytes."""
        return self.assumed.gpu_gib * GIB

    def as_json(self) -> dict[str, Any]:
        """Return the figures as a JSON object, in bytes, tokens, seconds and hours."""
        return {
            "policy": {
                "base": self.config.policy.base,
                "parameters": self.shape.parameters,
                "trained": self.trained,
                **asdict(self.shape),
            },
            "tokens": {
                **asdict(self.lengths),
                "plain": self.lengths.plain,
                "called": self.lengths.called,
                "mean": self.lengths.mean,
                "rtr": self.lengths.rtr,
                "rtr_by_view": self.ratios.mean,
            },
            "trainer_bytes": {
                job: {**asdict(rank), "total": rank.total} for job, rank in self.trainers.items()
            },
            "trainer_bytes_typical": {job: rank.total for job, rank in self.typical.items()},
            "trainer_bytes_by_zero_stage": self.stages,
            "engine": {**asdict(self.engine), "at_once": self.engine.at_once},
            "cache_bytes": asdict(self.caches),
            "bytes_per_step": asdict(self.traffic),
            "export_bytes": self.exports,
            "hours": {job: asdict(hours) for job, hours in self.hours.items()},
            "split": {**asdict(self.advice), "excess": self.advice.excess},
            "reward_cpus": self.reward_cpus,
            "faults": self.faults,
            "warnings": self.ratios.warnings,
            "assumptions": asdict(self.assumed),
        }


def make(config: PlatformConfig, assumed: Assumptions, sizes: Sequence[Size] = ()) -> Sheet:
    """Make the plan of a setup.

    `sizes` are the sizes of real images, which replace the assumed image.

    Raises ConfigError for a setup on CPUs, and for a value that no GPU run can have.
    """
    assumed.check()
    _check_gpus(config.sft, config.grpo)
    policy, grpo = config.policy, config.grpo
    family = model_family(policy)
    shape, limits = geometry(policy.base, family), vision_limits(config.method, family)
    tokens = lengths(config.method, config.engine, grpo.max_tokens, limits, assumed)
    trained, frozen = trained_parameters(policy, shape)
    wanted = grpo.groups_in_flight * grpo.group_size
    engine = engine_memory(
        config.engine, policy.lora_rank, wanted, shape, tokens, assumed.rollout()
    )
    jobs, turns = {"sft": config.sft, "grpo": grpo}, config.method.max_turns
    longest = {
        name: trainer(policy, job, shape, tokens.widest, turns * grpo.max_tokens)
        for name, job in jobs.items()
    }
    typical = {
        name: trainer(policy, job, shape, tokens.called, turns * tokens.answer)
        for name, job in jobs.items()
    }
    return Sheet(
        config=config,
        assumed=assumed,
        shape=shape,
        trained=trained,
        frozen=frozen,
        lengths=tokens,
        ratios=ratios(sizes or [assumed.image_size], config.method, family),
        trainers={job: memory(rank, shape, assumed.overhead_gib) for job, rank in longest.items()},
        typical={job: memory(rank, shape, assumed.overhead_gib) for job, rank in typical.items()},
        stages={job: _by_stage(rank, shape, assumed) for job, rank in longest.items()},
        engine=engine,
        caches=caches(shape, tokens, config.engine),
        traffic=traffic(grpo, policy, config.engine.dtype, trained, assumed),
        hours={
            "sft": sft_hours(config.sft, policy, config.data.train_samples, shape, tokens, assumed),
            "grpo": grpo_hours(
                grpo, policy, config.engine.tensor_parallel, shape, tokens, engine, assumed
            ),
        },
        advice=_advice(config, shape, tokens, engine, assumed),
    )


def _advice(
    config: PlatformConfig,
    shape: Geometry,
    tokens: Lengths,
    engine: EngineMemory,
    assumed: Assumptions,
) -> Advice:
    """Compare the divisions of the setup's GPUs between learner ranks and rollout actors."""
    policy, parallel = config.policy, config.engine.tensor_parallel
    scored = config.method.max_turns * config.grpo.max_tokens

    def fits(grpo: GrpoConfig) -> bool:
        rank = trainer(policy, grpo, shape, tokens.widest, scored)
        need = memory(rank, shape, assumed.overhead_gib).total
        return need <= assumed.gpu_gib * GIB and engine.longest >= 1

    def hours(grpo: GrpoConfig) -> float:
        return grpo_hours(grpo, policy, parallel, shape, tokens, engine, assumed).hours

    return advise(config.grpo, parallel, pools=assumed.pools, fits=fits, hours=hours)


def _check_gpus(sft: SftConfig, grpo: GrpoConfig) -> None:
    if grpo.learner_gpus and grpo.rollout_gpus and sft.use_gpu:
        return
    raise ConfigError(
        f"sft.use_gpu={str(sft.use_gpu).lower()}, grpo.learner_gpus={grpo.learner_gpus:g}, "
        f"grpo.rollout_gpus={grpo.rollout_gpus:g}: a plan is for GPUs; set them to true, 1 and 1, "
        "or give --config jobs/configs/awares-7b.toml"
    )


def _by_stage(rank: Trainer, shape: Geometry, assumed: Assumptions) -> dict[int, float]:
    """Map each ZeRO stage to the number of bytes that a rank needs with this stage."""
    return {
        stage: memory(replace(rank, stage=stage), shape, assumed.overhead_gib).total
        for stage in STAGES
    }


def _trainer_fault(sheet: Sheet, job: str) -> str:
    rank = sheet.trainers[job]
    settings = sheet.config.sft if job == "sft" else sheet.config.grpo
    workers = "sft.workers" if job == "sft" else "grpo.learner_workers"
    ways = [f"{job}.zero_stage=3" if settings.zero_stage < 3 else f"more {workers}"]
    if settings.micro_tokens:
        ways.append(f"{job}.micro_tokens={settings.micro_tokens // 2}")
    elif settings.micro_batch > 1:
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
        f"the KV cache has {gib(max(engine.kv, 0.0))} GiB, too little for one sequence of "
        f"engine.max_model_len={settings.max_model_len}; lower it, or raise "
        "engine.gpu_memory_utilization or "
        f"engine.tensor_parallel={settings.tensor_parallel}"
    ]


def _context_faults(sheet: Sheet) -> list[str]:
    """Return a fault if a request within the budget can exceed the engine's context.

    The check of the configuration cannot find this fault, because it does not know the length of
    the environment's own prompt.
    """
    most, context = sheet.lengths.largest, sheet.config.engine.max_model_len
    if most.tokens <= context:
        return []
    return [
        f"the longest legal episode has {most.tokens} tokens, of which {most.prompt} are the prompt"
        f", more than engine.max_model_len={context}; raise it, or lower method.max_visual_tokens"
    ]


def gib(count: float) -> str:
    """Format a number of bytes in GiB, with one decimal and without the unit."""
    return f"{count / GIB:.1f}"
