"""Computes the hours and GPU-hours of SFT and GRPO from the FLOPs of their tokens.

method/flops.py counts the FLOPs of a token, and cites the papers behind the formulas.
"""

import math
from dataclasses import dataclass

from awares.passes import PassBudget
from awares_platform.config.grpo import GrpoConfig
from awares_platform.config.policy import PolicyConfig
from awares_platform.config.sft import SftConfig
from awares_platform.method.flops import (
    Pass,
    language_flops,
    passes,
    tower_flops,
    tower_passes,
)
from awares_platform.plan.assumptions import Assumptions
from awares_platform.plan.engine import SLOTS, EngineMemory
from awares_platform.plan.geometry import Geometry
from awares_platform.plan.lengths import Lengths
from awares_platform.plan.ranks import Cost, RankTime, rank_time


@dataclass(frozen=True, slots=True)
class JobHours:
    """The time that a job takes, and the GPUs that it uses.

    Example:
        JobHours(
            steps=6250, ranks=RankTime(1.7, 0.3, 0.4, 0.06, 0.09, 1), rollout_s=1.6, load_s=0.2,
            views_s=1.4, step_s=1.7, gpus=8, hours=3.0, gpu_hours=24.0,
        )
    """

    steps: int
    """Number of training steps."""
    ranks: RankTime
    """Learning time of one step."""
    rollout_s: float
    """Seconds of a step's rollouts: `load_s` plus the longer of generation and `views_s`."""
    load_s: float
    """Seconds that an engine takes to add the adapter of a new version."""
    views_s: float
    """Seconds that a rollout actor takes to prepare images, while the engine generates."""
    step_s: float
    """Seconds of a step.

    If learning and rollouts overlap, a step takes as long as the longer one. Otherwise it takes the
    sum of both times.
    """
    gpus: int
    """Number of GPUs of the job."""
    hours: float
    gpu_hours: float
    """`hours` times `gpus`."""

    @property
    def learner_waits(self) -> float:
        """The seconds of a step in which the learner waits for rollouts."""
        return self.step_s - self.ranks.seconds

    @property
    def rollouts_wait(self) -> float:
        """The seconds of a step in which the rollout engines wait for the learner."""
        return self.step_s - self.rollout_s


def sft_hours(
    sft: SftConfig,
    policy: PolicyConfig,
    samples: int,
    shape: Geometry,
    lengths: Lengths,
    assumed: Assumptions,
) -> JobHours:
    """Compute the time of SFT.

    An epoch reads `samples` demonstrations, which the plan assumes to be as long as episodes.
    """
    work = passes(policy, extra=0)
    cost = _cost(shape, work, tower_passes(policy, work), assumed)
    budget = PassBudget(sft.micro_batch, sft.micro_tokens, policy.packed)
    ranks = rank_time(
        sft.batch_size, sft.workers, budget, lengths, assumed, cost, across_steps=True
    )
    steps = sft.epochs * math.ceil(samples / sft.batch_size)
    return _job(steps, ranks, 0.0, 0.0, 0.0, ranks.seconds, sft.workers)


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

    Rollouts and learning take turns if grpo.staleness_bound is 0. Otherwise they overlap, and the
    slower one determines the step.
    """
    learning = _learning(grpo, policy, shape, lengths, assumed)
    load = engine.adapters / SLOTS / (assumed.adapter_mbs * 1e6)
    generation = rollout_seconds(grpo, parallel, shape, lengths, engine, assumed.rollout())
    views = view_seconds(grpo, lengths, assumed)
    rollout = load + max(generation, views)
    if grpo.staleness_bound == 0:
        step = learning.seconds + rollout
    else:
        learning = learning.ahead(rollout)
        step = max(learning.seconds, rollout)
    gpus = grpo.learner_workers + grpo.rollout_actors * parallel
    return _job(grpo.steps, learning, rollout, load, views, step, gpus)


def _learning(
    grpo: GrpoConfig, policy: PolicyConfig, shape: Geometry, lengths: Lengths, assumed: Assumptions
) -> RankTime:
    """Compute the learning time of a step.

    The reference and the proximal policy may each need a forward pass. The trained policy and the
    reference share one pass of a frozen vision tower, except with ZeRO stage 3.
    """
    proximal = int(grpo.scores_proximal)
    work = passes(policy, extra=(grpo.kl_beta > 0) + proximal)
    shared = not policy.train_vision and grpo.zero_stage < 3
    tower = Pass(1 + proximal, 0, 0) if shared else tower_passes(policy, work)
    cost = _cost(shape, work, tower, assumed, shared=shared)
    budget = PassBudget(grpo.micro_batch, grpo.micro_tokens, policy.packed)
    episodes = grpo.groups_per_step * grpo.group_size // grpo.minibatches
    ranks, size = grpo.learner_workers, grpo.group_size
    update = rank_time(episodes, ranks, budget, lengths, assumed, cost, sharing=size)
    return update.times(grpo.minibatches)


def _cost(
    shape: Geometry, work: Pass, tower: Pass, assumed: Assumptions, *, shared: bool = False
) -> Cost:
    """Return the seconds that a trainer takes for a sequence and for a visual token."""
    speed = assumed.peak_tflops * 1e12 * assumed.train_mfu
    return Cost(
        language=lambda tokens: language_flops(shape, tokens, work) / speed,
        tower=tower_flops(shape, 1, tower) / speed,
        shared=shared,
    )


def rollout_seconds(
    grpo: GrpoConfig,
    parallel: int,
    shape: Geometry,
    lengths: Lengths,
    engine: EngineMemory,
    assumed: Assumptions,
) -> float:
    """Return the seconds that the engines take to generate the episodes of one learner step.

    Prefill computes each group's prompt once (prefix cache). Each decoding step reads the weights
    and the KV cache.
    """
    forward = Pass(1, 0, 0)
    episodes = grpo.groups_per_step * grpo.group_size

    def flops(tokens: float, visual: float) -> float:
        return language_flops(shape, tokens, forward) + tower_flops(shape, visual, forward)

    prompts = grpo.groups_per_step * flops(lengths.prompt, lengths.low)
    crops = episodes * lengths.call_rate * flops(lengths.crop, lengths.crop)
    gpus = grpo.rollout_actors * parallel
    prefill = (prompts + crops) / (gpus * assumed.peak_tflops * 1e12 * assumed.prefill_mfu)
    per_engine = episodes / grpo.rollout_actors
    at_once = max(1.0, min(engine.at_once, per_engine * (1 + grpo.staleness_bound)))
    steps = per_engine * lengths.sampled / at_once
    read = engine.weights + engine.adapters / SLOTS + at_once * lengths.mean * engine.kv_token
    return prefill + steps * read / (assumed.hbm_gbs * 1e9 * assumed.decode_efficiency)


def view_seconds(grpo: GrpoConfig, lengths: Lengths, assumed: Assumptions) -> float:
    """Return the seconds that a rollout actor takes to prepare its share of a step's images.

    One CPU thread prepares the images. A group shares the decoded image and its low-resolution
    view.
    """
    crops = grpo.groups_per_step * grpo.group_size * lengths.call_rate
    prepared = grpo.groups_per_step * assumed.image_ms + crops * assumed.crop_ms
    return prepared / 1e3 / grpo.rollout_actors


def reward_cpus(grpo: GrpoConfig, step_s: float, assumed: Assumptions) -> float:
    """Return how many CPUs the rewards keep busy if a learner step takes `step_s` seconds.

    Every answer counts as new, so the plan neglects the cache of the sentence encoder.
    """
    return grpo.groups_per_step * grpo.group_size * assumed.reward_ms / 1e3 / step_s


def _job(
    steps: int,
    ranks: RankTime,
    rollout: float,
    load: float,
    views: float,
    step: float,
    gpus: int,
) -> JobHours:
    hours = steps * step / 3600
    return JobHours(
        steps=steps,
        ranks=ranks,
        rollout_s=rollout,
        load_s=load,
        views_s=views,
        step_s=step,
        gpus=gpus,
        hours=hours,
        gpu_hours=hours * gpus,
    )
