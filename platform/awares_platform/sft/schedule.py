"""Learning-rate schedules: pure functions of the step, so that a resumed run goes on where it was."""

import math


def cosine(step: int, steps: int, peak: float, warmup_ratio: float) -> float:
    """Learning rate of `step` (0-based) of `steps`: linear warmup over `warmup_ratio` of them, then a cosine towards zero.

    Example:
        cosine(0, 100, 1e-3, 0.1) == 1e-4
    """
    warmup = round(steps * warmup_ratio)
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return peak * 0.5 * (1 + math.cos(math.pi * progress))
