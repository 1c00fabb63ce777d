"""Handwritten digits: 8 x 8 scans from scikit-learn's load_digits. The two splits share no scan."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

SplitName = Literal["train", "test"]
SPLIT_SEED = 20260317
TEST_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class Scans:
    """The N scans of one split: `ink` is (N, 8, 8) float32 in 0..1, `digit` is (N,) int.

    Example:
        Scans(np.zeros((2, 8, 8), np.float32), np.array([3, 7]))
    """

    ink: np.ndarray
    digit: np.ndarray


@lru_cache(maxsize=2)
def scans(split: SplitName) -> Scans:
    """Return the scans of a split. The test split is the last fifth of a seeded permutation."""
    pixels, digit = (np.asarray(part) for part in load_digits(return_X_y=True))
    order = np.random.default_rng(SPLIT_SEED).permutation(len(digit))
    cut = int(len(order) * (1 - TEST_SHARE))
    chosen = order[:cut] if split == "train" else order[cut:]
    return Scans(
        (pixels[chosen].reshape(-1, 8, 8) / 16.0).astype(np.float32), digit[chosen].astype(int)
    )


@lru_cache(maxsize=20_000)
def glyph(split: SplitName, scan: int, height: int) -> np.ndarray:
    """Return the scan, resized to (height, height), as float32 from 0 (blank) to 1 (ink)."""
    return _ink(_scan(split, scan).resize((height, height), Image.Resampling.BICUBIC))


def warped_glyph(split: SplitName, scan: int, height: int, rng: np.random.Generator) -> np.ndarray:
    """Return what `glyph` returns, but with the digit turned, slanted and stretched at random.

    This augmentation is needed because there are few scans.
    """
    turn, slant = rng.normal(0, 0.12), rng.normal(0, 0.15)
    wide, tall = rng.uniform(0.9, 1.1, 2)
    cos, sin = np.cos(turn), np.sin(turn)
    matrix = (
        np.array(((cos, -sin), (sin, cos)))
        @ np.array(((1, slant), (0, 1)))
        @ np.diag((1 / wide, 1 / tall))
        * (_FINE / height)
    )
    shift = (_FINE - matrix @ (height, height)) / 2
    affine = (matrix[0, 0], matrix[0, 1], shift[0], matrix[1, 0], matrix[1, 1], shift[1])
    size, bilinear = (height, height), Image.Resampling.BILINEAR
    return _ink(_fine_scan(split, scan).transform(size, Image.Transform.AFFINE, affine, bilinear))


_FINE = 24
"""Side in pixels of the enlarged scan that `warped_glyph` turns, slants and stretches."""


@lru_cache(maxsize=4_000)
def _fine_scan(split: SplitName, scan: int) -> Image.Image:
    return _scan(split, scan).resize((_FINE, _FINE), Image.Resampling.BICUBIC)


def _scan(split: SplitName, scan: int) -> Image.Image:
    return Image.fromarray(scans(split).ink[scan], mode="F")


def _ink(image: Image.Image) -> np.ndarray:
    return np.clip(np.asarray(image), 0.0, 1.0)
