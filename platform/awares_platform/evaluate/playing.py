"""Plays the policies on one engine, one policy after the other.

To measure its latency, each policy first plays some questions one at a time. If the actor or its
engine fails, another actor plays the remaining questions.
"""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from awares.sample import Sample
from awares_platform.config import PlatformConfig
from awares_platform.config.evaluate import JOINED_FROM, EvaluateConfig
from awares_platform.evaluate.cascade import PlayedBy, join
from awares_platform.evaluate.policies import POLICIES, Weights
from awares_platform.method.family import model_family
from awares_platform.method.play import Played, check_engine
from awares_platform.runtime.progress import Progress
from awares_platform.runtime.watch import FailureRate, restarting

if TYPE_CHECKING:
    from awares_platform.runtime.driver import Watched

PROBES = 32
"""The canary, which is a check of new weights, takes its samples from this number of questions."""

CHUNK = 256
"""The number of questions per call of the actor. The progress is updated after each call."""

Kept = dict[str, dict[str, Played]]
"""The finished episodes by policy and sample id. They are kept if the actor dies."""


def play_all(config: PlatformConfig, samples: Sequence[Sample]) -> PlayedBy:
    """Play every policy. The episodes of each policy are in the order of `samples`.

    Raises LaunchError if actors are lost more than evaluate.engine_restarts times within an hour.
    """
    from awares_platform.training.failure import unwrapped

    policies = config.evaluate.policies
    alone = latency_subset(config.evaluate, config.run.seed, samples)
    total = len(samples) * sum(name not in JOINED_FROM for name in policies)
    total += len(alone) * ("escalate" in policies)
    kept: Kept = {}
    with unwrapped(), Progress("evaluate", total=total, unit="questions") as progress:

        def attempt() -> None:
            with _evaluator(config, progress) as watched:
                _play_policies(policies, watched, samples, alone, kept, progress)

        losses = FailureRate(config.evaluate.engine_restarts)
        key = "evaluate.engine_restarts"
        restarting(attempt, losses, key, progress.say, "the episodes that it has")
    decided = kept.pop("escalate", {})
    played = {name: [by_id[one.sample_id] for one in samples] for name, by_id in kept.items()}
    family, tokens = model_family(config.policy), config.evaluate.max_tokens
    spec = POLICIES["awares"].spec(config.method, family, tokens, config.engine.max_model_len)
    decision_s = {sample_id: one.latency_s for sample_id, one in decided.items()}
    joined = join(policies, played, decision_s, spec)
    return {policy: joined[policy] for policy in policies}


@contextmanager
def _evaluator(config: PlatformConfig, progress: Progress) -> Iterator["Watched"]:
    """Start an Evaluator and its engine, yield the watched actor, and kill it at the end."""
    import ray

    from awares_platform.evaluate.evaluator import Evaluator
    from awares_platform.runtime.driver import Watched, needs

    cpus, gpus = config.evaluate.engine_cpus, config.evaluate.engine_gpus
    actor: Any = ray.remote(Evaluator).options(num_cpus=cpus, num_gpus=gpus).remote(config)
    watched = Watched("the evaluator", actor, config.run.hang_timeout_s)
    try:
        progress.say("starting the engine")
        watched.wait_for_node(needs(cpus, gpus, {}), progress.say)
        watched.result(actor.start.remote())
        yield watched
        watched.result(actor.stop.remote())
    finally:
        ray.kill(actor)


def _play_policies(
    policies: Sequence[str],
    watched: "Watched",
    samples: Sequence[Sample],
    alone: Sequence[Sample],
    kept: Kept,
    progress: Progress,
) -> None:
    """Let each policy play the samples that are missing in `kept`.

    Two-pass policies are built later from these episodes. For "escalate", only the first turn is
    played, on the samples in `alone`, to measure its latency.
    """
    loaded: Weights = "base"
    played = sorted((name for name in policies if name not in JOINED_FROM), key=_order)
    for policy in [*played, *(["escalate"] if "escalate" in policies else [])]:
        part = alone if policy == "escalate" else samples
        if len(kept.get(policy, {})) == len(part):
            continue
        if (weights := POLICIES[policy].weights) != loaded:
            loaded = weights
            watched.result(watched.actor.load.remote(weights, samples[:PROBES]))
        _play(watched, policy, part, alone, kept.setdefault(policy, {}), progress)
        check_engine(list(kept[policy].values()))


def _order(policy: str) -> int:
    """Return a sort key that groups policies by weights: "base", then "sft", then "awares"."""
    return ("base", "sft", "awares").index(POLICIES[policy].weights)


def _play(
    watched: "Watched",
    policy: str,
    samples: Sequence[Sample],
    alone: Sequence[Sample],
    kept: dict[str, Played],
    progress: Progress,
) -> None:
    """Play the samples that are missing in `kept`, and add their episodes to it.

    The samples in `alone` run first, one at a time, because their latency is measured.
    """
    taken = {sample.sample_id for sample in alone}
    rest = [sample for sample in samples if sample.sample_id not in taken]
    actor = watched.actor
    for method, part in [(actor.play_alone, alone), (actor.play, rest)]:
        left = [sample for sample in part if sample.sample_id not in kept]
        calls = [
            method.remote(policy, left[start : start + CHUNK])
            for start in range(0, len(left), CHUNK)
        ]
        for call in calls:
            chunk = watched.result(call)
            kept |= {one.sample.sample_id: one for one in chunk}
            progress.advance(len(chunk), note=policy)


def latency_subset(evaluate: EvaluateConfig, seed: int, samples: Sequence[Sample]) -> list[Sample]:
    """Draw the samples on which the latency is measured. Every policy gets the same samples."""
    count = min(evaluate.latency_questions, len(samples))
    return random.Random(seed).sample(list(samples), count)
