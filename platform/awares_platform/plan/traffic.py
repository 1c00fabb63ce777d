"""Bytes to and from the bucket per learner step: weights, images, checkpoints."""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from awares_platform.config import PlatformConfig
from awares_platform.plan.assumptions import Assumptions
from awares_platform.plan.trainer import OPTIMIZER

Points = Sequence[tuple[float, float]]

CHANGED: Points = ((1e-6, 0.015), (1e-5, 0.094), (1e-4, 0.43))
"""Learning rate -> share of bfloat16 weights that an AdamW step changes; measured by tests/benchmarks/codec.py, table in README.md."""
ENCODED: Points = (
    (0.0, 0.0),
    (0.012, 0.0073),
    (0.015, 0.0087),
    (0.033, 0.0173),
    (0.081, 0.0367),
    (0.094, 0.0405),
    (0.43, 0.144),
    (1.0, 0.78),
)
"""Changed share -> bytes of a delta over the full bytes; the same table. A delta in which everything changes is as large as an anchor."""
USELESS = 0.7
"""Of an anchor: a delta beyond it is left out where an anchor is written (awares_platform.weights.plan)."""
DENSE = 0.78
"""Bytes of an anchor over the full bytes: dense, zstd; the same table."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes: of one delta and one anchor, and per step over all parts of the run. `changed` is the share that a step changes.

    Example:
        Traffic(changed=0.094, delta=6.1e8, anchor=1.2e10, weights_up=1.3e9, weights_down=2.4e9, images=6e7, checkpoints=1e9)
    """

    changed: float
    delta: float
    anchor: float
    weights_up: float
    weights_down: float
    images: float
    checkpoints: float


def between(points: Points, x: float, *, log: bool = False) -> float:
    """Linear interpolation (of the x axis' logarithm if `log`), flat outside."""
    xs = [math.log(point[0]) if log else point[0] for point in points]
    at = math.log(x) if log else x
    right = bisect_left(xs, at)
    if right in (0, len(xs)):
        return points[0 if right == 0 else -1][1]
    share = (at - xs[right - 1]) / (xs[right] - xs[right - 1])
    return points[right - 1][1] * (1 - share) + points[right][1] * share


def period(delta: float, anchor: float, every: int) -> int:
    """Versions from one anchor to the next: `every`, or fewer where the deltas would outweigh an anchor before."""
    return max(1, min(every, int(anchor // delta) + 1)) if delta else every


def traffic(config: PlatformConfig, trained: int, assumed: Assumptions) -> Traffic:
    """Only trained parameters are published, in engine.dtype; every engine pulls every version. A LoRA adapter is so small that its
    deltas are counted as anchors. Each group's image is read once by an engine and once by a learner rank. A checkpoint holds the trained
    weights and the optimizer's state."""
    grpo = config.grpo
    full = float(trained * (4 if config.engine.dtype == "float32" else 2))
    changed = (
        between(CHANGED, grpo.learning_rate, log=True)
        if assumed.changed_share is None
        else assumed.changed_share
    )
    anchor = DENSE * full
    delta = anchor if config.policy.lora_rank else between(ENCODED, changed) * full
    weight = 2 if config.policy.dtype == "bfloat16" else 4
    return Traffic(
        changed=1.0 if config.policy.lora_rank else changed,
        delta=delta,
        anchor=anchor,
        weights_up=delta
        if delta > USELESS * anchor
        else delta + anchor / period(delta, anchor, grpo.anchor_every),
        weights_down=delta * grpo.rollout_actors,
        images=2 * grpo.groups_per_step * assumed.image_mb * 1e6,
        checkpoints=(weight + OPTIMIZER) * trained / grpo.checkpoint_every,
    )
