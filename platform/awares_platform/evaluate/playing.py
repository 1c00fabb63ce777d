"""Plays the policies on one engine, one policy after the other.

Each policy first plays the latency subset, one question at a time, and then all other questions.
Policies with the same weights follow each other, so that the engine loads these weights only once.
"""

import random
from collections.abc import Sequence
from typing import Any

from awares.sample import Sample
from awares_platform.config import PlatformConfig
from awares_platform.config.evaluate import JOINED_FROM, EvaluateConfig
from awares_platform.evaluate.cascade import PlayedBy, join
from awares_platform.evaluate.policies import POLICIES, Weights
from awares_platform.method.family import model_family
from awares_platform.method.play import Played, check_engine
from awares_platform.runtime.progress import Progress

PROBES = 32
"""The number of questions among which the canary for new weights looks for usable ones."""

CHUNK = 256
"""The number of questions per call of the actor. Each call updates the shown progress."""


def play_all(config: PlatformConfig, samples: Sequence[Sample]) -> PlayedBy:
    """Play every policy. The episodes of each policy are in the order of `samples`."""
    import ray

    from awares_platform.evaluate.evaluator import Evaluator
    from awares_platform.training.failure import unwrapped

    policies = config.evaluate.policies
    resources = {"num_cpus": config.evaluate.engine_cpus, "num_gpus": config.evaluate.engine_gpus}
    actor: Any = ray.remote(Evaluator).options(**resources).remote(config)
    alone = latency_subset(config.evaluate, config.run.seed, samples)
    total = len(samples) * sum(name not in JOINED_FROM for name in policies)
    total += len(alone) * ("escalate" in policies)
    try:
        with unwrapped(), Progress("evaluate", total=total, unit="questions") as progress:
            progress.say("starting the engine")
            ray.get(actor.start.remote())
            played, decision_s = _play_policies(policies, actor, samples, alone, progress)
            ray.get(actor.stop.remote())
    finally:
        ray.kill(actor)
    family, tokens = model_family(config.policy), config.evaluate.max_tokens
    spec = POLICIES["awares"].spec(config.method, family, tokens, config.engine.max_model_len)
    joined = join(policies, played, decision_s, spec)
    return {policy: joined[policy] for policy in policies}


def _play_policies(
    policies: Sequence[str],
    actor: Any,
    samples: Sequence[Sample],
    alone: Sequence[Sample],
    progress: Progress,
) -> tuple[PlayedBy, dict[str, float]]:
    """Play all policies except the two-pass policies, and return a dict of episodes by policy.

    Return a second dict from sample ids to the seconds of escalate's first turn. This dict is empty
    if escalate is not evaluated.
    """
    import ray

    played: PlayedBy = {}
    loaded: Weights = "base"
    for policy in sorted((name for name in policies if name not in JOINED_FROM), key=_order):
        if POLICIES[policy].weights != loaded:
            loaded = POLICIES[policy].weights
            ray.get(actor.load.remote(loaded, samples[:PROBES]))
        played[policy] = _play(actor, policy, samples, alone, progress)
        check_engine(played[policy])
    if "escalate" not in policies:
        return played, {}
    decided = _play(actor, "escalate", alone, alone, progress)
    return played, {one.sample.sample_id: one.latency_s for one in decided}


def _order(policy: str) -> int:
    """Return a sort key that groups policies by their weights: base, then sft, then awares."""
    return ("base", "sft", "awares").index(POLICIES[policy].weights)


def _play(
    actor: Any, policy: str, samples: Sequence[Sample], alone: Sequence[Sample], progress: Progress
) -> list[Played]:
    """Play `samples`, and return their episodes in the same order.

    The latency subset `alone` runs first, one question at a time. The function then submits all
    chunks of the other samples at once.
    """
    import ray

    played: dict[str, Played] = {}
    taken = {sample.sample_id for sample in alone}
    rest = [sample for sample in samples if sample.sample_id not in taken]
    for method, part in [(actor.play_alone, alone), (actor.play, rest)]:
        calls = [
            method.remote(policy, part[start : start + CHUNK])
            for start in range(0, len(part), CHUNK)
        ]
        for call in calls:
            chunk = ray.get(call)
            played |= {one.sample.sample_id: one for one in chunk}
            progress.advance(len(chunk), note=policy)
    return [played[sample.sample_id] for sample in samples]


def latency_subset(evaluate: EvaluateConfig, seed: int, samples: Sequence[Sample]) -> list[Sample]:
    """Draw at most evaluate.latency_questions samples. Every policy gets the same samples."""
    count = min(evaluate.latency_questions, len(samples))
    return random.Random(seed).sample(list(samples), count)
