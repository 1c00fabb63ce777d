"""Computes the hours and GPU-hours of SFT and GRPO from the FLOPs of their tokens.

A token costs these FLOPs in a language model of n parameters:

    forward pass             2n    + 2 * layers * width * length for causal attention
    gradient of activations  2n    + twice the attention of the forward pass
    gradient of weights      2n

Here `width` is the hidden width, and `length` is the number of tokens of the sequence. n excludes
the embedding, because an embedding is only a lookup. n also excludes the head, because the head
runs at few positions. Sources: Kaplan et al., arXiv 2001.08361, section 2.1; PaLM, arXiv
2204.02311, appendix B.
"""

import math
from dataclasses import dataclass

from awares_platform.config.grpo import GrpoConfig
from awares_platform.config.policy import PolicyConfig
from awares_platform.config.sft import SftConfig
from awares_platform.plan.assumptions import Assumptions
from awares_platform.plan.engine import EngineMemory
from awares_platform.plan.geometry import Geometry
from awares_platform.plan.lengths import Lengths


@dataclass(frozen=True, slots=True)
class Pass:
    """How often one training step runs each kind of computation on a model.

    `forward` is the number of forward passes. A reference policy adds one forward pass.
    `activations` is the number of computations of the activations' gradients. `weights` is the
    number of computations of the weights' gradients.

    Example:
        Pass(forward=2, activations=1, weights=0)  # LoRA with a reference
    """

    forward: int
    activations: int
    weights: int

    @property
    def parameter_factor(self) -> int:
        """The number of FLOPs per parameter and token in one training step."""
        return 2 * (self.forward + self.activations + self.weights)

    @property
    def attention_factor(self) -> int:
        """The attention FLOPs of a training step divided by the attention FLOPs of a forward pass.

        The backward pass of attention costs twice as much as the forward pass.
        """
        return self.forward + 2 * self.activations


@dataclass(frozen=True, slots=True)
class JobHours:
    """The time that a job takes, and the GPUs that it uses.

    A step needs `learn_s` seconds of learning and `rollout_s` seconds of rollouts. The whole step
    takes `step_s` seconds. If learning and rollouts overlap, `step_s` is less than the sum of
    `learn_s` and `rollout_s`.

    Example:
        JobHours(
            steps=6250, learn_s=5.9, rollout_s=1.2, step_s=5.9, gpus=8, hours=10.2, gpu_hours=82.0
        )
    """

    steps: int
    learn_s: float
    rollout_s: float
    step_s: float
    gpus: int
    hours: float
    gpu_hours: float


def passes(policy: PolicyConfig, *, reference: bool) -> Pass:
    """Return how often one training step runs each computation on the language model.

    The plan neglects the weight gradients of LoRA adapters. These gradients cost about a thousandth
    of the weight gradients of the whole model.
    """
    return Pass(1 + reference, 1, 0 if policy.lora_rank else 1)


def sequence_flops(
    shape: Geometry, tokens: float, visual: float, work: Pass, vision: Pass
) -> float:
    """Return the FLOPs of one sequence with `tokens` tokens, including `visual` visual tokens.

    `work` counts the computations of the language model, and `vision` counts the computations of
    the vision tower. The tower reads merge**2 patches for each visual token. The plan neglects the
    tower's attention, which costs little because it is windowed.
    """
    language = shape.layers * shape.layer_parameters * tokens * work.parameter_factor
    attention = 2 * shape.layers * shape.hidden * tokens * tokens * work.attention_factor
    tower = shape.vision_parameters * visual * shape.merge**2 * vision.parameter_factor
    return language + attention + tower


def sft_hours(
    sft: SftConfig,
    policy: PolicyConfig,
    samples: int,
    shape: Geometry,
    lengths: Lengths,
    assumed: Assumptions,
) -> JobHours:
    """Compute the time of SFT.

    An epoch reads `samples` demonstrations. Each demonstration has the length of an average
    episode.
    """
    work = passes(policy, reference=False)
    flops = sft.batch_size * _episode_flops(policy, shape, lengths, work)
    learn = flops / (sft.workers * assumed.peak_tflops * 1e12 * assumed.train_mfu)
    steps = sft.epochs * math.ceil(samples / sft.batch_size)
    return _job(steps, learn, 0.0, learn, sft.workers)


def grpo_hours(
    grpo: GrpoConfig,
    policy: PolicyConfig,
    parallel: int,
    shape: Geometry,
    lengths: Lengths,
    engine: EngineMemory,
    assumed: Assumptions,
) -> JobHours:
    """Compute the time of GRPO. Each rollout engine has `parallel` GPUs.

    If grpo.staleness_bound is 0, rollouts and learning take turns. Otherwise rollouts and learning
    overlap, and the step takes as long as the slower of the two.
    """
    work = passes(policy, reference=grpo.kl_beta > 0)
    episodes = grpo.groups_per_step * grpo.group_size
    flops = episodes * _episode_flops(policy, shape, lengths, work)
    learn = flops / (grpo.learner_workers * assumed.peak_tflops * 1e12 * assumed.train_mfu)
    rollout = rollout_seconds(grpo, parallel, shape, lengths, engine, assumed)
    step = max(learn, rollout) if grpo.staleness_bound else learn + rollout
    gpus = grpo.learner_workers + grpo.rollout_actors * parallel
    return _job(grpo.steps, learn, rollout, step, gpus)


def _episode_flops(policy: PolicyConfig, shape: Geometry, lengths: Lengths, work: Pass) -> float:
    """Return the FLOPs of training on an average episode.

    A frozen vision tower has no backward pass.
    """
    vision = work if policy.train_vision else Pass(work.forward, 0, 0)
    return sequence_flops(shape, lengths.mean, lengths.visual, work, vision)


def rollout_seconds(
    grpo: GrpoConfig,
    parallel: int,
    shape: Geometry,
    lengths: Lengths,
    engine: EngineMemory,
    assumed: Assumptions,
) -> float:
    """Return the seconds of the rollouts for one learner step.

    The result is the time of prefill plus the time of decoding. Prefill computes every crop. Thanks
    to the prefix cache, it computes the prompt of a group only once. Each decoding step reads the
    weights and the KV cache of all sequences in the batch.
    """
    forward = Pass(1, 0, 0)
    episodes = grpo.groups_per_step * grpo.group_size
    prompt = sequence_flops(shape, lengths.prompt, lengths.low, forward, forward)
    crop = sequence_flops(shape, lengths.crop, lengths.crop, forward, forward)
    flops = grpo.groups_per_step * prompt + episodes * lengths.call_rate * crop
    gpus = grpo.rollout_actors * parallel
    prefill = flops / (gpus * assumed.peak_tflops * 1e12 * assumed.prefill_mfu)
    per_engine = episodes / grpo.rollout_actors
    at_once = max(1.0, min(engine.at_once, per_engine * (1 + grpo.staleness_bound)))
    steps = per_engine * lengths.sampled / at_once
    read = engine.weights + at_once * lengths.mean * engine.kv_token
    return prefill + steps * read / (assumed.hbm_gbs * 1e9 * assumed.decode_efficiency)


def _job(steps: int, learn: float, rollout: float, step: float, gpus: int) -> JobHours:
    hours = steps * step / 3600
    return JobHours(steps, learn, rollout, step, gpus, hours, hours * gpus)
