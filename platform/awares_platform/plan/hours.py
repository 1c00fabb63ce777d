"""Hours and GPU-hours of SFT and GRPO, from the FLOPs of their tokens.

FLOPs of a language model of n parameters per token (Kaplan et al., arXiv 2001.08361, section 2.1; PaLM, arXiv 2204.02311, appendix B):
2n forward, 2n for the gradients of activations, 2n for those of weights; attention adds 2 * layers * width * length per token forward
(causal, so half of its square), and as much twice again backward. n leaves out the embedding and the head, which runs at few positions.
"""

import math
from dataclasses import dataclass

from awares_platform.config import PlatformConfig
from awares_platform.plan.assumptions import Assumptions
from awares_platform.plan.engine import EngineMemory
from awares_platform.plan.geometry import Geometry
from awares_platform.plan.lengths import Lengths


@dataclass(frozen=True, slots=True)
class Pass:
    """Passes over a sequence: how many forward (a reference counts), and the gradients of activations and weights.

    Example:
        Pass(forward=2, activations=1, weights=0)  # LoRA with a reference
    """

    forward: int
    activations: int
    weights: int

    @property
    def parameter_factor(self) -> int:
        """FLOPs per parameter and token."""
        return 2 * (self.forward + self.activations + self.weights)

    @property
    def attention_factor(self) -> int:
        """Passes of attention; its backward pass costs twice its forward pass."""
        return self.forward + 2 * self.activations


@dataclass(frozen=True, slots=True)
class JobHours:
    """`step_s` is the time of a step; `learn_s` and `rollout_s` are its two sides, which GRPO overlaps.

    Example:
        JobHours(steps=6250, learn_s=5.9, rollout_s=1.2, step_s=5.9, gpus=8, hours=10.2, gpu_hours=82.0)
    """

    steps: int
    learn_s: float
    rollout_s: float
    step_s: float
    gpus: int
    hours: float
    gpu_hours: float


def passes(config: PlatformConfig, *, reference: bool) -> Pass:
    """What [policy] makes of one training pass. LoRA's own weight gradients are left out: they are a thousandth of the model's."""
    return Pass(1 + reference, 1, 0 if config.policy.lora_rank else 1)


def sequence_flops(
    shape: Geometry, tokens: float, visual: float, work: Pass, vision: Pass
) -> float:
    """FLOPs of one sequence of `tokens`, of which `visual` are image tokens (merge**2 patches each in the tower, attention in windows)."""
    language = shape.layers * shape.layer_parameters * tokens * work.parameter_factor
    attention = 2 * shape.layers * shape.hidden * tokens * tokens * work.attention_factor
    tower = shape.vision_parameters * visual * shape.merge**2 * vision.parameter_factor
    return language + attention + tower


def _vision(config: PlatformConfig, work: Pass) -> Pass:
    """A frozen tower has no backward pass, and a reference needs its features again."""
    return work if config.policy.train_vision else Pass(work.forward, 0, 0)


def sft_hours(
    config: PlatformConfig, shape: Geometry, lengths: Lengths, assumed: Assumptions
) -> JobHours:
    """Every epoch reads data.train_samples once; a typical sample is an average episode."""
    settings = config.sft
    work = passes(config, reference=False)
    flops = settings.batch_size * sequence_flops(
        shape, lengths.mean, lengths.visual, work, _vision(config, work)
    )
    learn = flops / (settings.workers * assumed.peak_tflops * 1e12 * assumed.train_mfu)
    steps = settings.epochs * math.ceil(config.data.train_samples / settings.batch_size)
    return _job(steps, learn, 0.0, learn, settings.workers)


def grpo_hours(
    config: PlatformConfig,
    shape: Geometry,
    lengths: Lengths,
    engine: EngineMemory,
    assumed: Assumptions,
) -> JobHours:
    """Rollouts and learning overlap unless grpo.staleness_bound is 0: the slower side is the step."""
    settings = config.grpo
    work = passes(config, reference=settings.kl_beta > 0)
    episodes = settings.groups_per_step * settings.group_size
    flops = episodes * sequence_flops(
        shape, lengths.mean, lengths.visual, work, _vision(config, work)
    )
    learn = flops / (settings.learner_workers * assumed.peak_tflops * 1e12 * assumed.train_mfu)
    rollout = rollout_seconds(config, shape, lengths, engine, assumed)
    step = max(learn, rollout) if settings.staleness_bound else learn + rollout
    gpus = settings.learner_workers + settings.rollout_actors * config.engine.tensor_parallel
    return _job(settings.steps, learn, rollout, step, gpus)


def rollout_seconds(
    config: PlatformConfig,
    shape: Geometry,
    lengths: Lengths,
    engine: EngineMemory,
    assumed: Assumptions,
) -> float:
    """Reading prompts (a group's first turn once, by the prefix cache; every crop) at prefill_mfu; then sampling, each step of which reads
    the weights once and the KV cache of every sequence that is decoded at the same time."""
    settings, parallel = config.grpo, config.engine.tensor_parallel
    gpus = settings.rollout_actors * parallel
    forward = Pass(1, 0, 0)
    first = settings.groups_per_step * sequence_flops(
        shape, lengths.prompt, lengths.low, forward, forward
    )
    calls = settings.groups_per_step * settings.group_size * lengths.call_rate
    flops = first + calls * sequence_flops(shape, lengths.crop, lengths.crop, forward, forward)
    prefill = flops / (gpus * assumed.peak_tflops * 1e12 * assumed.prefill_mfu)
    episodes = settings.groups_per_step * settings.group_size / settings.rollout_actors
    at_once = max(1.0, min(engine.at_once, episodes * (1 + settings.staleness_bound)))
    read = engine.weights + at_once * lengths.mean * engine.kv_token
    decode = (
        episodes
        * lengths.sampled
        / at_once
        * read
        / (assumed.hbm_gbs * 1e9 * assumed.decode_efficiency)
    )
    return prefill + decode


def _job(steps: int, learn: float, rollout: float, step: float, gpus: int) -> JobHours:
    hours = steps * step / 3600
    return JobHours(steps, learn, rollout, step, gpus, hours, hours * gpus)
