"""Tests the check that a weight update changes the logprobs of engine and learner alike.

Engine and learner score the same prompts, the canary. The tests simulate the engine's rounding
errors.
"""

import pytest
import torch

from awares_platform.engine.canary import CanaryMismatch, Logprobs
from awares_platform.engine.canary_change import Change, change, check

TOKENS = 160


def measured(played: float, size: float, noise: float, seed: int = 0) -> Change:
    """Return a random change of the learner's logprobs, and the engine's change.

    The engine's change is `played` times the learner's change, plus rounding errors. `size` is the
    standard deviation of the learner's change, and `noise` that of the rounding errors.
    """
    torch.manual_seed(seed)
    start, update = torch.randn(TOKENS) - 2, torch.randn(TOKENS) * size
    first, second = torch.randn(TOKENS) * noise, torch.randn(TOKENS) * noise
    return change(
        rows(start + update),
        rows(start),
        rows(start + played * update + second),
        rows(start + first),
    )


def rows(values: torch.Tensor) -> Logprobs:
    return tuple(tuple(row) for row in values.reshape(4, -1).tolist())


@pytest.mark.parametrize("size", [1e-4, 0.03, 0.3])
@pytest.mark.parametrize("noise", [1e-6, 0.03])
def test_an_engine_that_plays_the_update_passes(size: float, noise: float) -> None:
    for seed in range(50):
        check(measured(1.0, size, noise, seed), version=3)


@pytest.mark.parametrize(
    ("played", "size", "noise"),
    [
        (0.0, 1e-4, 1e-6),
        (0.0, 0.06, 0.03),
        (0.5, 0.12, 0.03),
        (0.9, 1e-4, 1e-6),
        (1.1, 1e-4, 1e-6),
        (0.85, 0.6, 0.03),
        (float("nan"), 0.3, 0.03),
    ],
)
def test_an_engine_that_plays_a_part_of_the_update_is_refused(
    played: float, size: float, noise: float
) -> None:
    for seed in range(50):
        with pytest.raises(CanaryMismatch, match=r"version 3: the engine plays"):
            check(measured(played, size, noise, seed), version=3)


def test_a_change_below_the_rounding_errors_is_not_seen() -> None:
    found = measured(0.0, 0.01, 0.03)
    assert not found.is_seen
    check(found, version=3)


def test_the_first_version_has_no_change() -> None:
    found = measured(1.0, 0.0, 0.03)
    assert (found.slope, found.is_seen) == (1.0, False)
