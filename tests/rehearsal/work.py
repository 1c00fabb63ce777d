"""Counts the FLOPs of a rehearsed GRPO step with the formulas of `awares plan`.

The table compares each part's share of a step's FLOPs with its share of the step's time. Absolute
times would not fit, because the plan is for GPUs and the rehearsal runs on a CPU. The parts are:

    time/wait     the engine scores the canary and generates, and the learner waits
    time/learn    passes with gradients, and reference passes
    time/publish  the learner scores the canary
"""

from collections.abc import Sequence
from itertools import groupby, pairwise

from awares_platform.config.grpo import GrpoConfig
from awares_platform.method.flops import Pass as Work
from awares_platform.method.flops import language_flops, tower_flops
from awares_platform.plan.geometry import Geometry
from awares_platform.plan.lengths import Lengths
from tests.rehearsal.figures import Pass

FORWARD = Work(1, 0, 0)


def step_work(
    done: Sequence[Pass],
    metrics: Sequence[dict[str, float]],
    grpo: GrpoConfig,
    shape: Geometry,
    tokens: Lengths,
) -> tuple[float, float, float]:
    """Return the FLOPs of waiting, learning and publishing, over all steps of the run.

    `done` are the passes of the learner. `metrics` has the metrics of each step.
    """
    canary, steps = split(done)
    prompts = canary[: len(canary) // scorings(canary)]
    publish = sum(forward(one, shape) for one in prompts)
    scoring = sum(engine_scoring(one, shape) for one in prompts)
    waits = learns = publishes = 0.0
    for index, (passes, line) in enumerate(zip(steps, metrics, strict=True)):
        learn = sum(update(one, shape) if one.gradient else forward(one, shape) for one in passes)
        # The engine scores the canary after each load, and once before the first load.
        scores = ("time/load" in line) + (index == 0)
        engine = scores * scoring + rollouts(grpo, shape, tokens)
        awaited = engine if line.get("time/load", 0.0) <= line["time/wait"] else 0.0
        slower = 1 + min((engine - awaited) / (learn + publish), 1.0)
        waits, learns = waits + awaited, learns + slower * learn
        publishes += slower * publish
    return waits, learns, publishes


def split(done: Sequence[Pass]) -> tuple[list[Pass], list[list[Pass]]]:
    """Return the passes that score canaries, and the passes that learn in each step.

    A pass without gradients is a reference pass if a pass with gradients on the same batch follows.
    Otherwise it scores a canary.
    """
    following = [later for _, later in pairwise(done)]
    learns = [
        one.gradient or (later.gradient and (one.rows, one.tokens) == (later.rows, later.tokens))
        for one, later in zip(done, [*following, done[-1]], strict=True)
    ]
    pairs = [*zip(done, learns, strict=True)]
    runs = [(yes, [one for one, _ in run]) for yes, run in groupby(pairs, key=lambda pair: pair[1])]
    return [one for one, yes in pairs if not yes], [run for yes, run in runs if yes]


def scorings(canary: Sequence[Pass]) -> int:
    """Return how often the learner has scored its canary.

    Each scoring consists of the same passes, so the function finds the shortest period of `canary`.
    """
    count = len(canary)
    periods = (size for size in range(1, count + 1) if count % size == 0)
    period = next(size for size in periods if [*canary] == [*canary[:size]] * (count // size))
    return count // period


def forward(one: Pass, shape: Geometry) -> float:
    """Return the FLOPs of a forward pass of the language model, the tower and the head."""
    language = one.rows * language_flops(shape, one.width, FORWARD)
    return language + _tower(one, shape) + _head(one.scored, shape)


def update(one: Pass, shape: Geometry) -> float:
    """Return the FLOPs of a pass that computes the gradients of an adapter."""
    # The tower does not count, because the reference pass has computed it (awares/tower.py).
    layers = one.rows * language_flops(shape, one.width, Work(one.layers, 1, 0))
    return layers + 2 * _head(one.scored, shape)


def engine_scoring(one: Pass, shape: Geometry) -> float:
    """Return the FLOPs with which an engine scores a prompt. The head runs at every position."""
    return forward(one, shape) + _head(one.tokens - one.scored, shape)


def rollouts(grpo: GrpoConfig, shape: Geometry, tokens: Lengths) -> float:
    """Return the FLOPs of the engine for the episodes of a step."""
    prompt = language_flops(shape, tokens.prompt, FORWARD)
    tower = tower_flops(shape, tokens.low, FORWARD)
    sampled = grpo.group_size * tokens.sampled
    decoding = sampled * language_flops(shape, 1, FORWARD) + _head(sampled, shape)
    return grpo.groups_per_step * (prompt + tower + decoding)


def _tower(one: Pass, shape: Geometry) -> float:
    return tower_flops(shape, one.patches / shape.merge**2, FORWARD)


def _head(positions: float, shape: Geometry) -> float:
    return 2.0 * positions * shape.vocab * shape.hidden
