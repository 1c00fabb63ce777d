"""Compares the engine's change of the canary's logprobs with the learner's change.

    learner:  version 0, version v --> change --\\
                                                 slope: engine's change / learner's change
    engine:   version 0, version v --> change --/

An engine that still computes with version 0 has a slope near 0. An engine that has loaded half of
an update has a slope near one half. If the update is smaller than the rounding errors, the mean
difference of the logprobs shows neither fault.
"""

import math
from dataclasses import dataclass

from awares_platform.engine.canary import CanaryMismatch, Logprobs

SLOPE_BOUND = 0.05
"""Largest accepted |slope - 1| without rounding errors. `Change.slope` defines the slope."""


@dataclass(frozen=True, slots=True)
class Change:
    """The engine's change of the canary's logprobs since version 0, compared with the learner's.

    Example:
        found = Change(slope=0.99, size=0.21, noise=0.03, tokens=137)
        found.tolerance    # 0.12
    """

    slope: float
    """The least-squares slope in: engine's change = slope * learner's change.

    The slope is near 1 if the engine loaded the whole update, and near 0 if it loaded nothing.
    """
    size: float
    """The root mean square of the learner's changes."""
    noise: float
    """The root mean square of the difference between engine and learner at version 0."""
    tokens: int
    """The number of compared tokens."""

    @property
    def tolerance(self) -> float:
        """The largest accepted |slope - 1|.

        The sum adds to SLOPE_BOUND three standard errors of the slope, and the effect of the
        learner's own rounding errors.
        """
        ratio = self.noise / self.size if self.size else math.inf
        return SLOPE_BOUND + 3 * math.sqrt(2 / self.tokens) * ratio + ratio**2

    @property
    def is_seen(self) -> bool:
        """True if the check would reject an engine that still computes with version 0."""
        return self.tolerance < 1


def change(
    learned: Logprobs, learned_start: Logprobs, measured: Logprobs, measured_start: Logprobs
) -> Change:
    """Compare the changes of the engine (`measured`) and the learner (`learned`) since version 0.

    The arguments with `_start` are the logprobs of version 0. Each argument has one row per prompt.
    """
    columns = zip(*map(_flat, (learned, learned_start, measured, measured_start)), strict=True)
    rows = [(now - then, seen - before, before - then) for now, then, seen, before in columns]
    squares = math.fsum(mine * mine for mine, _, _ in rows)
    product = math.fsum(mine * theirs for mine, theirs, _ in rows)
    errors = math.fsum(error * error for _, _, error in rows)
    return Change(
        slope=product / squares if squares else 1.0,
        size=math.sqrt(squares / len(rows)),
        noise=math.sqrt(errors / len(rows)),
        tokens=len(rows),
    )


def check(found: Change, version: int) -> None:
    """Raise CanaryMismatch if the slope's distance from 1 exceeds the tolerance.

    If the learner's change is too small for a reliable slope, every slope passes.
    """
    # A slope of NaN must fail the check. `abs(...) > found.tolerance` would be false for NaN.
    if found.is_seen and not abs(found.slope - 1) <= found.tolerance:
        raise CanaryMismatch(
            f"version {version}: the engine plays {found.slope:.1%} of the learner's change since "
            f"version 0, and {1 - found.tolerance:.1%} to {1 + found.tolerance:.1%} is accepted "
            f"({found.tokens} tokens, change {found.size:.3g}, rounding {found.noise:.3g}). "
            "Restart the engine; if it happens again, a part of the update is not loaded"
        )


def _flat(rows: Logprobs) -> list[float]:
    return [value for row in rows for value in row]
