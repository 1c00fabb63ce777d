"""Counts the FLOPs of a rehearsed GRPO step with the formulas of `awares plan`.

A plan for GPUs states no seconds of a CPU. On two cores all parts of a step take turns, so the
share of a part is its share of the FLOPs. The parts are the metrics of the learner:

    time/wait     the engine scores the canary and generates, and the learner waits
    time/learn    passes with gradients, which recompute each layer, and reference passes
    time/publish  the learner scores the canary
"""

from collections.abc import Sequence
from itertools import pairwise

from awares_platform.config.grpo import GrpoConfig
from awares_platform.method.flops import Pass as Work
from awares_platform.method.flops import language_flops, tower_flops
from awares_platform.plan.geometry import Geometry
from awares_platform.plan.lengths import Lengths
from tests.rehearsal.figures import Pass

FORWARD = Work(1, 0, 0)


def step_work(
    done: Sequence[Pass], grpo: GrpoConfig, shape: Geometry, tokens: Lengths, loads: int
) -> tuple[float, float, float]:
    """Return the FLOPs of waiting, learning and publishing, over all steps of the run.

    `done` are the passes of the learner. `loads` is the number of versions that the engine has
    loaded while the learner waited. The engine scores the canary after each load, and once before
    the first load. The learner takes its first two scores at its start, so they belong to no step.
    """
    canary, learning = split(done)
    prompts = canary[: len(canary) // scorings(canary)] if canary else []
    scoring = sum(forward(one, shape) for one in prompts)
    whole = sum(engine_scoring(one, shape) for one in prompts)
    publish = scoring * (scorings(canary) - 2)
    learn = sum(forward(one, shape) if not one.gradient else update(one, shape) for one in learning)
    return (loads + 1) * whole + rollouts(grpo, shape, tokens), learn, publish


def split(done: Sequence[Pass]) -> tuple[list[Pass], list[Pass]]:
    """Return the passes that score canaries, and the passes that learn.

    A reference pass has no gradients. The pass with gradients on the same batch follows it.
    """
    following = [later for _, later in pairwise(done)]
    learns = [
        one.gradient or (later.gradient and (one.rows, one.tokens) == (later.rows, later.tokens))
        for one, later in zip(done, [*following, done[-1]], strict=True)
    ]
    pairs = [*zip(done, learns, strict=True)]
    return [one for one, yes in pairs if not yes], [one for one, yes in pairs if yes]


def scorings(canary: Sequence[Pass]) -> int:
    """Return how often the learner has scored its canary. Every prompt is in each scoring once."""
    return sum(one == canary[0] for one in canary)


def forward(one: Pass, shape: Geometry) -> float:
    """Return the FLOPs of a forward pass of the language model, the tower and the head."""
    language = one.rows * language_flops(shape, one.width, FORWARD)
    return language + _tower(one, shape) + _head(one.scored, shape)


def update(one: Pass, shape: Geometry) -> float:
    """Return the FLOPs of a pass with gradients of an adapter.

    The layers run `one.layers` times forward and once backward, and the head runs once in each
    direction. The reference pass has computed the tower already (awares/tower.py).
    """
    layers = one.rows * language_flops(shape, one.width, Work(one.layers, 1, 0))
    return layers + 2 * _head(one.scored, shape)


def engine_scoring(one: Pass, shape: Geometry) -> float:
    """Return the FLOPs with which an engine scores a prompt. Its head runs at every position."""
    return forward(one, shape) + _head(one.tokens - one.scored, shape)


def rollouts(grpo: GrpoConfig, shape: Geometry, tokens: Lengths) -> float:
    """Return the FLOPs of the engine for the episodes of all steps."""
    prompt = language_flops(shape, tokens.prompt, FORWARD)
    tower = tower_flops(shape, tokens.low, FORWARD)
    sampled = grpo.group_size * tokens.sampled
    decoding = sampled * language_flops(shape, 1, FORWARD) + _head(sampled, shape)
    return grpo.steps * grpo.groups_per_step * (prompt + tower + decoding)


def _tower(one: Pass, shape: Geometry) -> float:
    return tower_flops(shape, one.patches / shape.merge**2, FORWARD)


def _head(positions: float, shape: Geometry) -> float:
    return 2.0 * positions * shape.vocab * shape.hidden
