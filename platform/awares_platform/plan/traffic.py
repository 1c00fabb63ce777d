"""Computes how many bytes a learner step writes to the S3 bucket and reads from it.

The bytes are weights, images and checkpoints. Weights are published whole (an anchor), or as
changes from the previous version (a delta).
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from awares.errors import ConfigError
from awares_platform.config.grpo import GrpoConfig
from awares_platform.config.policy import PolicyConfig
from awares_platform.plan.assumptions import Assumptions
from awares_platform.plan.trainer import OPTIMIZER, element_bytes

Points = Sequence[tuple[float, float]]
"""A curve as points (x, y) in ascending order of x."""

CHANGED: Points = ((1e-6, 0.015), (1e-5, 0.094), (1e-4, 0.43))
"""Measured pairs of a learning rate and the share of bfloat16 weights that a step changes.

tests/benchmarks/codec.py measures the shares, and platform/docs/weights.md has the table.
"""
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
"""Points (share of changed weights, bytes of a delta divided by the bytes of unencoded weights).

The points come from the same table as CHANGED. A delta that changes every weight is as large as an
anchor.
"""
USELESS = 0.7
"""The learner publishes no delta beside an anchor if the delta exceeds this share of the anchor.

Such a delta would save the engines too little. The same number is in
awares_platform.weights.cadence.
"""
DENSE = 0.78
"""Bytes of an anchor divided by the bytes of the unencoded weights.

The number comes from the same table as CHANGED. zstd compresses the weights in an anchor."""
ADAPTER_DELTA: Points = ((1e-5, 0.33), (1e-4, 0.41))
"""Measured points (learning rate, bytes of an adapter's delta divided by its unencoded bytes).

The points are for the largest delta of a training run, which occurs at about the fifth step. Later
deltas shrink, and have half of this size after 200 steps. tests/benchmarks/adapter_bytes.py
measures the points.
"""
ADAPTER_ANCHOR = 0.65
"""Bytes of an adapter's anchor divided by the adapter's unencoded bytes.

The number comes from the same benchmark. At the start of training, LoRA's matrices B are zero, and
an anchor is half as large.
"""


@dataclass(frozen=True, slots=True)
class Traffic:
    """The sizes of the published weights, and the S3 traffic of a learner step, in bytes.

    Example:
        Traffic(
            changed=0.094, raw=1.5e10, delta=6.1e8, anchor=1.2e10, weights_up=1.3e9,
            weights_down=2.4e9, images=6e7, checkpoints=1e9,
        )
    """

    changed: float | None
    """Share of the published weights that a step changes, or None for an adapter."""
    raw: float
    """Unencoded weights."""
    delta: float
    """One delta."""
    anchor: float
    """One anchor."""
    weights_up: float
    """Weights that the learner writes, as a mean per step."""
    weights_down: float
    """Weights that all engines together read, as a mean per step."""
    images: float
    """Images that engines and learner ranks read, as a mean per step."""
    checkpoints: float
    """Checkpoints that the learner writes, as a mean per step."""


def between(points: Points, x: float, *, log: bool = False) -> float:
    """Interpolate linearly between the points of a curve.

    If `log` is true, the interpolation is linear in log x. The curve is flat outside its points.
    """
    xs = [math.log(point[0]) if log else point[0] for point in points]
    at = math.log(x) if log else x
    right = bisect_left(xs, at)
    if right in (0, len(xs)):
        return points[0 if right == 0 else -1][1]
    share = (at - xs[right - 1]) / (xs[right] - xs[right - 1])
    return points[right - 1][1] * (1 - share) + points[right][1] * share


def period(delta: float, anchor: float, every: int) -> int:
    """Return the number of versions from one anchor (all weights) to the next.

    The number is at most `every`. It is smaller if `every` - 1 deltas together are larger than an
    anchor.
    """
    return max(1, min(every, int(anchor // delta) + 1)) if delta else every


def traffic(
    grpo: GrpoConfig, policy: PolicyConfig, dtype: str, trained: int, assumed: Assumptions
) -> Traffic:
    """Compute the traffic of a run that publishes `trained` parameters in `dtype` (engine.dtype).

    Every engine downloads every version.

    Raises ConfigError if `assumed` states a share of changed weights, but the run trains an
    adapter.
    """
    raw = float(trained * element_bytes(dtype))
    changed, delta, anchor = _encoded(grpo.learning_rate, bool(policy.lora_rank), assumed)
    up, down = per_version(delta * raw, anchor * raw, grpo.anchor_every)
    return Traffic(
        changed=changed,
        raw=raw,
        delta=delta * raw,
        anchor=anchor * raw,
        weights_up=up,
        weights_down=down * grpo.rollout_actors,
        # An engine and a learner rank each read a group's image.
        images=2 * grpo.groups_per_step * assumed.image_mb * 1e6,
        # A checkpoint holds the optimizer's state, which includes fp32 weights.
        checkpoints=OPTIMIZER * trained / grpo.checkpoint_every,
    )


def per_version(delta: float, anchor: float, every: int) -> tuple[float, float]:
    """Return the mean bytes per version that the learner writes, and that one engine reads.

    If a delta exceeds the share `USELESS` of an anchor, a version with an anchor has no delta, and
    engines read the anchor.
    """
    versions = period(delta, anchor, every)
    if delta <= USELESS * anchor:
        return delta + anchor / versions, delta
    mean = (anchor + (versions - 1) * delta) / versions
    return mean, mean


def _encoded(
    learning_rate: float, adapter: bool, assumed: Assumptions
) -> tuple[float | None, float, float]:
    """Return the share of changed weights, and the sizes of a delta and of an anchor.

    The sizes are shares of the unencoded bytes.
    """
    if not adapter:
        changed = assumed.changed_share
        if changed is None:
            changed = between(CHANGED, learning_rate, log=True)
        return changed, between(ENCODED, changed), DENSE
    if assumed.changed_share is not None:
        raise ConfigError(
            f"--changed-share {assumed.changed_share:g} has no effect on an adapter: leave it out, "
            "or set policy.lora_rank=0"
        )
    return None, between(ADAPTER_DELTA, learning_rate, log=True), ADAPTER_ANCHOR
