"""Real handwritten digits (scikit-learn's load_digits, 8 x 8 scans), split so that test digits were never seen in training."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

Split = Literal["train", "test"]
SPLIT_SEED = 20260317
TEST_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class Scans:
    """Scans of one split: `ink` (N, 8, 8) float32 in 0..1, `digit` (N,) int.

    Example:
        Scans(np.zeros((2, 8, 8), np.float32), np.array([3, 7]))
    """

    ink: np.ndarray
    digit: np.ndarray


@lru_cache(maxsize=2)
def scans(split: Split) -> Scans:
    """The split's scans: a seeded permutation of all 1,797, the last fifth for testing."""
    bunch = load_digits()
    order = np.random.default_rng(SPLIT_SEED).permutation(len(bunch.target))
    cut = int(len(order) * (1 - TEST_SHARE))
    chosen = order[:cut] if split == "train" else order[cut:]
    return Scans((bunch.images[chosen] / 16.0).astype(np.float32), bunch.target[chosen].astype(int))


@lru_cache(maxsize=200_000)
def glyph(split: Split, scan: int, height: int) -> np.ndarray:
    """The scan as an ink mask of (height, height) float32 in 0..1."""
    small = Image.fromarray(scans(split).ink[scan], mode="F")
    return np.clip(np.asarray(small.resize((height, height), Image.Resampling.BICUBIC)), 0.0, 1.0)
