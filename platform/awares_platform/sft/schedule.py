"""Computes the learning rate of each SFT step."""

import math


def cosine(step: int, steps: int, peak: float, warmup_ratio: float) -> float:
    """Return the learning rate of `step` (0-based) out of `steps`.

    The rate rises linearly to `peak` in the first `warmup_ratio * steps` steps. The rate then
    follows a cosine towards zero.

    Example:
        cosine(0, 100, 1e-3, 0.1) == 1e-4
    """
    warmup = round(steps * warmup_ratio)
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return peak * 0.5 * (1 + math.cos(math.pi * progress))
